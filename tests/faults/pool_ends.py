"""The end of a pool: what its hosts left in the database, in their logs and on the machine."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from faults.house import House

_OURS: Final = frozenset({
    "look_failed", "order_failed", "beat_failed", "status_untold", "member_left_processes", "member_left_its_engine",
})  # fmt: skip
"""Events that only a fault of ours writes."""
_NOTED: Final = frozenset({
    "killed_leftovers", "died_asleep", "member_died", "member_overstays", "member_silent", "switch_step_failed",
    "unfit",
})  # fmt: skip
_LONGEST_SWITCH_SECONDS: Final = 120.0
_UNDER_WAY: Final = "select id, state, host from pool_decisions where ended_at is null"
_MUST_NOT_BE: Final = {
    "something is on a host that is gone": """
        select r.* from pool_residents r where r.host <> all(%s)""",
    "a host has more awake than it has places": """
        select r.host, array_agg(r.queue || ' ' || r.state) from pool_residents r
        where r.state in ('waking', 'awake', 'leaving') and r.host = any(%s) group by 1 having count(*) > 1""",
}


def end(house: House) -> list[str]:
    """Look at the pool once it is calm, then end its hosts as an operator does; what is wrong."""
    wrong = []
    until = time.monotonic() + _LONGEST_SWITCH_SECONDS
    while (open_ := house.rows(_UNDER_WAY)) and time.monotonic() < until:
        time.sleep(0.2)
    wrong += [f"a switch does not end: {row}" for row in open_]
    wrong += rows_that_must_not_be(house)
    hosts = house.named("host")
    for name in hosts:
        house.terminate(name)
    for name in hosts:
        if (code := house.wait(name, 60)) != 0:
            wrong.append(f"{name} ended with {code}\n{house.tell(name)}")
        wrong += [f"{process} outlives {name}, which was told to end" for process in house.left_by(name)]
    wrong += [f"something is on a host that has ended: {row}" for row in house.rows("select * from pool_residents")]
    return wrong + [f"a fault of ours: {event}" for event in _events(house) if event["event"] in _OURS]


def rows_that_must_not_be(house: House) -> list[str]:
    """What the rows say of hosts and may not be once nothing is struck any more."""
    live = [house.holder(name) for name in house.named("host")]
    return [f"{what}: {row}" for what, query in _MUST_NOT_BE.items() for row in house.rows(query, live)]


def notes(house: House) -> Counter[str]:
    """What the hosts did and met: their switches by how they ended, and what is rare."""
    told: Counter[str] = Counter()
    for method, state, error, count in house.rows(
        "select method, state, left(error, 60), count(*) from pool_decisions group by 1, 2, 3"
    ):
        told[f"switch by {method}: {state}{f' ({error})' if error else ''}"] += count
    for event in _events(house):
        if event["event"] in _NOTED:
            told[f"hosts said: {event['event']}"] += 1
    return told


def _events(house: House) -> Iterator[dict[str, Any]]:
    """What hosts and members wrote."""
    logs = [house.residents[name].log for name in house.named("host")]
    for log in [*logs, *(path for name in house.named("host") for path in (house.logs / name).rglob("worker.log*"))]:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("{"):
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if isinstance(event, dict) and "event" in event:
                    yield event
