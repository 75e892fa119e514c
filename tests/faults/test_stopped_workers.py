"""F3 and F4: a worker that is told to end gives its work back whole; one that slept past its lease writes nothing.

`ROLLING_RESTARTS=50` makes more rounds of restarts than the few that every run of the tests makes.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from e2e.live import chat
from faults.house import House
from faults.load import Load, check, requests

from penstock.store.engine import sync_engine
from penstock.store.work import counts

ROUNDS = int(os.environ.get("ROLLING_RESTARTS", "4"))
pytestmark = pytest.mark.timeout(180 + 20 * ROUNDS)

LEASE_SECONDS = 5.0
GRACE_SECONDS = 5.0
SLOTS = 16
LATENCY_SECONDS = 0.2
WORKERS = ("gpu-1", "gpu-2")


@pytest.fixture(scope="module")
def house(build: Callable[..., House], journal: Path) -> House:
    """Two gpu workers with short leases."""
    arguments = [f"--journal={journal}", f"--max-num-seqs={SLOTS}", f"--latency-ms={LATENCY_SECONDS * 1000:g}"]
    return build(
        gpus=2,
        engine_arguments=arguments,
        lease_seconds=f"{LEASE_SECONDS}",
        beat_seconds="1",
        worker_gone_seconds="6",
        close_grace_seconds=f"{GRACE_SECONDS}",
        flush_seconds="0.2",
        slice_lines="30",
    )


@pytest.fixture(autouse=True)
def unbroken(house: House) -> Iterator[None]:
    """Both workers live before a test; after it the database and the blobs are as they must be."""
    for name in WORKERS:
        if not house.lives(name):
            house.start(name)
    house.wait_until_ready()
    yield
    check(house)


def counted(house: House) -> dict[str, int]:
    """How often rare things happened so far."""
    engine = sync_engine(house.database_url, connections=1)
    with engine.connect() as connection:
        found = counts.read(connection)
    engine.dispose()
    return found


@contextmanager
def frozen(*processes: int) -> Iterator[None]:
    """These processes stand still meanwhile."""
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def alone(house: House, name: str) -> Iterator[None]:
    """Only this gpu worker counts as ready meanwhile: one that stands still does not, nor one that was killed."""
    others = [id for (id,) in house.rows("select id from workers where kind = 'gpu' and id <> %s", house.holder(name))]
    house.sql("update workers set state = 'drained' where id = any(%s)", others)
    try:
        yield
    finally:
        house.sql("update workers set state = 'ready' where id = any(%s)", others)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["slice.flushing=stop@2", "segment.written=stop@2", "slice.settling=stop"])
def test_a_worker_that_slept_past_its_lease_writes_nothing_while_another_has_its_slice(
    house: House, journal: Path, point: str
) -> None:
    house.kill("gpu-1")
    # It flushes once all lines are fed and once all are answered: when it stops nothing of it is in an engine.
    house.start("gpu-1", failpoints=point, flush_seconds="60")
    del house.residents["gpu-1"].own["flush_seconds"]
    house.wait_until_ready()
    before, zombie = counted(house), psutil.Process(house.pid("gpu-1"))
    load_lease = "select lease from slices where batch = %s"
    settling = point.startswith("slice.settling")  # nothing is left to ask: whoever has the slice settles it
    with frozen(house.engine("gpu-2")[-1].pid):  # so that the other worker keeps the slice in hand until we have looked
        with frozen(house.pid("gpu-2")):
            name = f"zombie-{point.partition('=')[0].replace('.', '-')}"
            with alone(house, "gpu-1"):  # for two workers it would be cut into several slices
                load = Load.submit(house, name, 30)
                slices = "select count(*) from slices where batch = %s"
                house.until(lambda: house.ask(slices, load.id) == 1, "it is planned as one slice")
            house.until(lambda: zombie.status() == psutil.STATUS_STOPPED, "gpu-1 is frozen")
            lease = house.ask(load_lease, load.id)
        house.until(lambda: house.ask(load_lease, load.id) != lease, "its slice was reaped")
        taken = (lambda: waits_for_nobody(house, load)) if settling else (lambda: house.ask(load_lease, load.id))
        house.until(taken, "another has its slice")
        recorded = house.ask("select count(*) from segments where lease = %s", lease)
        house.cont("gpu-1")
        house.until(lambda: counted(house)["lease_lost"] > before["lease_lost"], "it finds that its lease is gone")
        assert house.ask("select count(*) from segments where lease = %s", lease) == recorded
        assert settling == waits_for_nobody(house, load)
    load.has_each_answer_once(house)
    again = load.asked_again(journal)
    assert set(again.values()) <= {2}
    assert bool(again) != settling
    assert counted(house)["answers_dropped"] - before["answers_dropped"] == len(again)
    house.kill("gpu-1")


def waits_for_nobody(house: House, load: Load) -> bool:
    """Whether all slices of a load are done."""
    return not house.ask("select count(*) from slices where batch = %s and state <> 'done'", load.id)


@dataclass(frozen=True)
class Round:
    """One restart: how many slices the worker held at SIGTERM, and how long it took to let go of them and to end."""

    held: int
    let_go_seconds: float
    ended_seconds: float


def held_by(house: House, holder: UUID | None) -> int:
    """How many slices a worker holds now."""
    return int(house.ask("select count(*) from leases where holder = %s and closed_at is null", holder))


def end(house: House, name: str) -> Round:
    """End a worker that has work by SIGTERM."""
    holder = house.holder(name)
    house.until(lambda: held_by(house, holder), f"{name} has work")
    at = time.time()
    house.terminate(name)
    assert house.wait(name, 30) == 0
    ended_seconds = time.time() - at
    rows = house.rows(
        "select extract(epoch from closed_at)::float8, closed_as from leases"
        " where holder = %s and closed_at >= to_timestamp(%s)",
        holder,
        at,
    )
    assert {how for _, how in rows} <= {"released", "settled"}
    assert not held_by(house, holder)
    return Round(len(rows), max((closed - at for closed, _ in rows), default=0.0), ended_seconds)


@pytest.mark.slow
def test_workers_that_are_restarted_in_turn_under_load_cost_nothing(house: House, journal: Path) -> None:
    loads: list[Load] = []
    rounds: list[Round] = []
    began = time.monotonic()
    for number in range(ROUNDS):
        if house.ask("select count(*) from slices where state in ('queued', 'ready')") < 8:
            loads.append(Load.submit(house, f"rolling-{number}", 300))
        name = WORKERS[number % 2]
        rounds.append(end(house, name))
        house.start(name)
        house.wait_until_ready()
    for load in loads:
        load.has_each_answer_once(house)
    again = sum(len(load.asked_again(journal)) for load in loads)
    slowest = max(one.let_go_seconds for one in rounds)
    print(
        f"{ROUNDS} rounds, {sum(load.lines for load in loads)} lines, {sum(one.held for one in rounds)} slices held at"
        f" SIGTERM, {again} lines asked again, let go after {slowest:.1f} s at most, ended after"
        f" {max(one.ended_seconds for one in rounds):.1f} s at most, {time.monotonic() - began:.0f} s in all"
    )
    assert again == 0  # the grace is longer than an answer takes, so nothing was in flight at its end
    assert slowest < GRACE_SECONDS  # what has come back is not kept until the grace is over
    mine = [load.id for load in loads]
    assert house.ask("select sum(crashes) from slices where batch = any(%s)", mine) == 0
    assert not house.ask("select count(*) from leases where batch = any(%s) and closed_as = 'reaped'", mine)


def test_a_line_that_does_not_come_back_within_the_grace_is_given_back_and_alone_is_asked_again(
    house: House, journal: Path
) -> None:
    house.restart("gpu-1", close_grace_seconds="1")
    house.wait_until_ready()
    house.kill("gpu-2")
    lines = [*requests("hanging", 10), chat("stuck", "line 11 of hanging. [[hang]]")]
    load = Load("hanging", 11, house.client.submit(lines).id)
    house.until(lambda: house.client.sdk.batches.retrieve(load.id).request_counts.completed == 10, "ten are recorded")
    ended = end(house, "gpu-1")
    assert 1.0 <= ended.let_go_seconds < 3.0
    house.start("gpu-2")
    house.until(lambda: load.asked_again(journal) == {11: 2}, "the line that hangs is asked again, and no other")
    house.client.sdk.batches.cancel(load.id)
    batch = house.client.ended(load.id)
    assert batch.status == "cancelled"
    assert (batch.request_counts.completed, batch.request_counts.failed) == (10, 1)
    house.start("gpu-1", close_grace_seconds=f"{GRACE_SECONDS}")
