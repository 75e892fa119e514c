"""F1 and F2: a gpu worker or its engine that is killed anywhere loses nothing, doubles nothing, and is soon replaced.

Two gpu workers share the load. One dies at a named place; the other, or one that is started then, takes over.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from faults.cases import further
from faults.house import House
from faults.load import Load, check
from worker.engines import ended

pytestmark = pytest.mark.timeout(300)

LEASE_SECONDS = 3.0
TICK_SECONDS = 1.0
SLOTS = 16
LATENCY_SECONDS = 0.2
FLUSH_SECONDS = 0.2
LINES = 240

# Of those that pass more than once, a later pass: then something was recorded before, and must not be asked again.
POINTS = [
    "slice.asking=kill",
    *further(
        "slice.settling=kill@2",
        "segment.written=kill@3",
        "slice.claimed=kill@2",
        "slice.flushing=kill@3",
        "segment.recorded=kill@3",
        "slice.settled=kill",
    ),
]


@pytest.fixture(scope="module")
def house(build: Callable[..., House], journal: Path) -> House:
    """Two gpu workers; leases are short, so that a death is seen soon."""
    arguments = [f"--journal={journal}", f"--max-num-seqs={SLOTS}", f"--latency-ms={LATENCY_SECONDS * 1000:g}"]
    return build(
        gpus=2,
        engine_arguments=arguments,
        lease_seconds=f"{LEASE_SECONDS}",
        beat_seconds="1",
        tick_seconds=f"{TICK_SECONDS}",
        worker_gone_seconds="4",
        flush_seconds=f"{FLUSH_SECONDS}",
        slice_lines="30",
    )


@pytest.fixture(autouse=True)
def unbroken(house: House) -> Iterator[None]:
    """Whatever died, the database and the blobs are as they must be."""
    yield
    check(house)


@dataclass(frozen=True)
class Death:
    """Who died and when, and the engine that died with it."""

    holder: UUID
    engine: int
    at: float

    def waits(self, house: House, load: Load) -> list[float]:
        """For each slice that died in its hands: the seconds until somebody ran it again."""
        rows = house.rows(
            """
            select extract(epoch from (
                select min(t.at) from trail t
                where t.slice = l.slice and t.becomes = 'running' and t.lease > l.id))::float8
            from leases l where l.holder = %s and l.batch = %s and l.closed_as = 'reaped'""",
            self.holder,
            load.id,
        )
        return [at - self.at for (at,) in rows]


def arm(house: House, name: str, point: str = "", **own: str) -> None:
    """Start a worker anew with a failpoint, where the one before it was killed: its socket and lock must be free."""
    house.kill(name)
    house.start(name, failpoints=point, **own)
    ready(house, name)


def ready(house: House, name: str) -> None:
    """Wait until a worker's engine answers."""
    query = "select exists (select from workers where pid = %s and state = 'ready')"
    house.until(lambda: house.ask(query, house.pid(name)), f"{name} is ready")


def death(house: House, name: str) -> Death:
    """Wait until a worker dies at its failpoint. Its engine dies within five seconds (F1b)."""
    holder, engine = house.holder(name), house.engine(name)
    assert holder
    assert len(engine) == 2
    assert house.wait(name, 60) == -signal.SIGKILL
    at = time.time()
    for process in engine:
        assert ended(process, at + 5.0 - time.time()), "an engine outlives its worker"
    return Death(holder, engine[-1].pid, at)


def only_what_was_in_hand_is_asked_again(house: House, journal: Path, load: Load, dead: Death) -> None:
    """I10: what was flushed before the death is not asked again, and only little was in hand."""
    asked = {one.line for one in load.asked(journal) if one.engine == dead.engine}
    in_hand = asked - load.recorded_by(house, dead.holder)
    again = load.asked_again(journal)
    assert set(again) <= in_hand
    assert set(again.values()) <= {2}
    # In flight at the death, and answered since the flush before; a flush may take half a second on a busy machine.
    rounds = (FLUSH_SECONDS + 0.5) / LATENCY_SECONDS
    assert len(in_hand) <= SLOTS * (1 + rounds)


@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_is_killed_anywhere_costs_only_what_was_in_its_hands(
    house: House, journal: Path, point: str
) -> None:
    arm(house, "gpu-1", point)
    house.stop("gpu-2")  # else it may be so quick that the other never comes to its point
    load = Load.submit(house, point.partition("=")[0].replace(".", "-"), LINES)
    dead = death(house, "gpu-1")
    house.cont("gpu-2")
    load.has_each_answer_once(house)
    waits = dead.waits(house, load)
    assert waits or point.startswith("slice.settled")
    assert all(seconds <= LEASE_SECONDS + TICK_SECONDS + 2 for seconds in waits), waits
    only_what_was_in_hand_is_asked_again(house, journal, load, dead)


@pytest.mark.parametrize("point", ["segment.recorded=kill@3", *further("slice.asking=kill", "segment.written=kill@3")])
def test_lines_that_share_an_answer_are_recorded_with_it_or_asked_again_together(
    house: House, journal: Path, point: str
) -> None:
    arm(house, "gpu-1", point)
    house.stop("gpu-2")
    load = Load.submit(house, "twins-" + point.partition("=")[0].replace(".", "-"), LINES, copies=3)
    dead = death(house, "gpu-1")
    house.cont("gpu-2")
    batch = load.has_each_answer_once(house)
    cached = [line for line in house.client.file(batch.output_file_id) if "cached" in line["response"]]
    assert len(cached) == LINES * 2 // 3
    recorded = load.recorded_by(house, dead.holder)
    assert all({leader, leader + 1, leader + 2} <= recorded for leader in recorded if leader % 3 == 1)
    again = load.asked_again(journal)
    assert set(again.values()) <= {2}
    assert not set(again) & recorded


@pytest.mark.slow  # a lease of 20 s; the same bound holds for the short leases of the others
def test_with_the_default_settings_work_of_a_killed_worker_runs_again_within_25_seconds(
    house: House, journal: Path
) -> None:
    house.kill("gpu-2")
    arm(house, "gpu-1", "segment.written=kill@3", lease_seconds="20", beat_seconds="5")
    load = Load.submit(house, "defaults", LINES)
    dead = death(house, "gpu-1")
    house.start("gpu-2")
    load.has_each_answer_once(house)
    waits = dead.waits(house, load)
    assert waits
    assert all(15 < seconds <= 25 for seconds in waits), waits
    only_what_was_in_hand_is_asked_again(house, journal, load, dead)


def test_an_engine_that_is_killed_alone_gives_its_slices_back_at_once_and_comes_back(
    house: House, journal: Path
) -> None:
    for name in ("gpu-1", "gpu-2"):
        if not house.lives(name):
            house.start(name, lease_seconds=f"{LEASE_SECONDS}", beat_seconds="1")
        ready(house, name)
    worker, holder, engine = house.pid("gpu-1"), house.holder("gpu-1"), house.engine("gpu-1")
    load = Load.submit(house, "engine", 3 * LINES)  # enough for both, and for longer than we look
    house.until(
        lambda: sum(one.engine == engine[-1].pid for one in load.asked(journal)) > 3 * SLOTS, "the engine is at work"
    )
    at = time.time()
    assert house.kill_engine("gpu-1")
    load.has_each_answer_once(house)
    assert (house.pid("gpu-1"), house.lives("gpu-1")) == (worker, True)
    house.until(lambda: house.engine("gpu-1")[1:] not in ((), engine[1:]), "there is a new engine", 30)
    held = house.rows(
        """
        select extract(epoch from closed_at)::float8, closed_as from leases
        where holder = %s and batch = %s and to_timestamp(%s) between opened_at and closed_at""",
        holder,
        load.id,
        at,
    )
    assert held
    assert all(how in ("released", "settled") and closed - at < LEASE_SECONDS for closed, how in held), (at, held)
    asked = {one.line for one in load.asked(journal) if one.engine == engine[-1].pid}
    again = load.asked_again(journal)
    assert set(again) <= asked
    assert len(again) <= SLOTS
    assert set(again.values()) <= {2}
