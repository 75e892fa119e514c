"""Runs of slices over the echo engine: what befalls one small job befalls no other, and trials end as they should."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from store.world import World
from worker.engines import echo_engine, wait_ready

from penstock import failpoint
from penstock.blobs.store import Blobs
from penstock.domain.api_errors import NoSpace
from penstock.domain.work import hint
from penstock.domain.work.hint import Hint
from penstock.domain.work.lane import LANES, Lane
from penstock.formats import plan
from penstock.service.lifecycle import dispatch, work
from penstock.service.views import batch_view
from penstock.settings import Settings
from penstock_worker.admission.gate import Gate
from penstock_worker.engine.client import EngineClient
from penstock_worker.engine.process.supervisor import Supervisor
from penstock_worker.engine_context import EngineContext
from penstock_worker.runtime import patience
from penstock_worker.runtime.beat import Beat, now
from penstock_worker.runtime.loop_thread import LoopThread
from penstock_worker.slices.run_context import RunContext
from penstock_worker.slices.slice_consumer import SliceConsumer
from penstock_worker.slices.slice_run import SliceRun

MODEL = "echo"


def input_line(number: int) -> bytes:
    """A line of an input file."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "say"}]}
    line = {"custom_id": f"q-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line).encode()


@pytest.fixture(scope="module")
def supervisor(short_dir: Path) -> Iterator[Supervisor]:
    with echo_engine(short_dir / "bundle") as supervisor:
        yield supervisor


@pytest.fixture
def engine(supervisor: Supervisor) -> Iterator[EngineContext]:
    wait_ready(supervisor, 30)
    with LoopThread() as loop:
        client = EngineClient(socket=supervisor.launch.socket, generation=lambda: supervisor.generation)
        with loop.living(client):
            yield EngineContext(client, Gate(64), supervisor, loop, Settings())


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    one = World(
        database_url,
        Settings(database_url=database_url, blob_url=f"file://{tmp_path}", flush_seconds=0.2, close_grace_seconds=0.2),
    )
    yield one
    one.check()
    one.close()


class Worker:
    """A gpu worker's drain and beat, without Celery."""

    def __init__(self, world: World, engine: EngineContext) -> None:
        self.world = world
        self.said: list[Hint] = []
        self.holder = world.worker(MODEL)
        self.beat = Beat(world.db, self.holder, world.settings)
        context = RunContext(world.db, Blobs(world.settings.blob_url), engine, self.beat, world.settings)
        self.drain = SliceConsumer(context, self.holder, self.said.extend)

    def look(self) -> str:
        """One hint's work; what it says."""
        self.world.db.run(dispatch.feed, MODEL, self.world.settings)
        return self.drain.one(Lane.FLEX)


@pytest.fixture
def worker(world: World, engine: EngineContext) -> Worker:
    return Worker(world, engine)


def job(world: World, prompt: str) -> str:
    """A job of one request."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": prompt}]})
    return world.job(1, body=body.encode())


def results(world: World, job: str) -> list[Any]:
    """What its tenant is told."""
    view = world.db.run(batch_view.view, "acme", "job", job, world.settings)
    assert view.results is not None, view.batch
    return [json.loads(line) for line in view.results]


def said(world: World, job: str) -> str:
    [result] = results(world, job)
    return str(result["response"]["body"]["choices"][0]["message"]["content"])


def test_small_jobs_are_answered_in_one_hand(world: World, worker: Worker) -> None:
    jobs = [job(world, f"say {n}") for n in range(20)]
    assert worker.look().startswith("20 small jobs · 20 answered")
    assert [said(world, one) for one in jobs] == [f"say {n}" for n in range(20)]
    assert not any(worker.drain.slice_slots.held.values())
    assert worker.look() == "nothing ready"


def test_a_quick_job_does_not_wait_for_a_slow_one(world: World, worker: Worker) -> None:
    quick, slow = job(world, "quick"), job(world, "slow [[sleep 5000]]")
    running = threading.Thread(target=worker.look)
    running.start()
    deadline = time.monotonic() + 20
    while not world.find(quick).ended:
        assert time.monotonic() < deadline
    assert not world.find(slow).ended
    running.join(30)
    assert world.find(slow).completed == 1


def test_a_member_that_is_reaped_loses_nothing_of_the_others(world: World, worker: Worker) -> None:
    others = [job(world, f"other {n}") for n in range(5)]
    slow = job(world, "slow [[sleep 5000]]")
    running = threading.Thread(target=worker.look)
    running.start()
    deadline = time.monotonic() + 20
    while not all(world.find(one).ended for one in others):
        assert time.monotonic() < deadline
    world.reap(slow)
    worker.beat.once()
    running.join(30)
    assert world.states(slow) == ["queued"]
    assert world.one("select value from counts where name = 'lease_lost'") == 1
    assert worker.look().startswith(slow)
    assert said(world, slow).startswith("slow")


def test_a_cancelled_member_ends_and_the_others_go_on(world: World, worker: Worker) -> None:
    slow, other = job(world, "slow [[sleep 600000]]"), job(world, "other [[sleep 1500]]")
    running = threading.Thread(target=worker.look)
    running.start()
    deadline = time.monotonic() + 20
    while len(worker.beat._grips) < 2:  # the lease is the worker's before the beat knows of it
        assert time.monotonic() < deadline
        time.sleep(0.01)
    world.cancel(slow, "job")
    worker.beat.once()
    running.join(30)
    assert world.find(slow).state == "cancelled"
    assert said(world, other).startswith("other")


def test_an_engines_death_gives_all_back_that_were_in_it_and_each_ends_in_a_claim_of_its_own(
    world: World, worker: Worker, supervisor: Supervisor
) -> None:
    others = [job(world, f"other {n} [[sleep 300]]") for n in range(4)]
    poison = job(world, "poison [[die]]")  # the last to be asked: the others are in the engine then
    assert "given back" in worker.look()
    assert world.one("select count(*) from suspects where deaths = 1") == 5
    deadline = time.monotonic() + 100
    while not all(world.find(one).ended for one in (poison, *others)):
        assert time.monotonic() < deadline
        wait_ready(supervisor, 30)
        worker.look()
    assert [said(world, one).startswith("other") for one in others] == [True] * 4
    assert [result["error"]["code"] for result in results(world, poison)] == ["engine_crash"]
    assert supervisor.generation <= 1 + 4


def test_what_is_not_answered_when_the_process_ends_is_given_back(world: World, worker: Worker) -> None:
    jobs = [job(world, f"slow {n} [[sleep 600000]]") for n in range(3)]
    running = threading.Thread(target=worker.look)
    running.start()
    deadline = time.monotonic() + 20
    while world.one("select count(*) from slices where state = 'running'") < 3:
        assert time.monotonic() < deadline
    worker.beat.drain()
    running.join(30)
    assert [world.states(one) for one in jobs] == [["queued"]] * 3
    assert world.one("select count(*) from suspects") == 0


class FullBlobs(Blobs):
    """A blob store on a disk that is full: it has the plan, and takes nothing more."""

    def range(self, key: str, offset: int, length: int) -> bytes:
        return b"".join(plan.frame(n, input_line(n)) for n in (1, 2))

    def put(self, key: str, data: bytes) -> None:
        raise NoSpace("The blob store is full.")


def test_a_disk_that_is_full_when_the_process_ends_is_no_fault_of_the_slice(
    world: World, engine: EngineContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_PAUSE_SECONDS", 0.05)
    batch = world.batch(2, model=MODEL)
    world.db.run(dispatch.feed, MODEL, world.settings)
    worker = Worker(world, engine)
    blobs = FullBlobs(world.settings.blob_url)
    context = RunContext(world.db, blobs, engine, worker.beat, world.settings)
    [claim] = world.db.run(work.claim, worker.holder, list(LANES), uuid.uuid4(), world.settings)
    threading.Timer(1.0, worker.beat.drain).start()
    with SliceRun(context) as run:
        run.hold([claim], now())
        told = run.run(lambda: None)
    assert told == "left behind: The blob store is full."
    assert world.one("select unreadable from slices where batch = :b", b=batch) == 0


def on_trial(world: World, worker: Worker, slow: str) -> threading.Thread:
    """A worker that has this job on trial: its slice was reaped twice before."""
    world.sql("update slices set crashes = 2 where batch = :batch", batch=slow)
    running = threading.Thread(target=worker.look)
    running.start()
    deadline = time.monotonic() + 20
    while not world.one("select count(*) from suspects where trial is not null"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return running


def lost(world: World) -> int:
    """Leases that were counted as lost."""
    return int(world.one("select coalesce(sum(value), 0) from counts where name = 'lease_lost'"))


def test_a_suspect_that_is_on_trial_when_the_process_ends_is_given_back_without_a_charge(
    world: World, worker: Worker
) -> None:
    slow = job(world, "slow [[sleep 600000]]")
    running = on_trial(world, worker, slow)
    worker.beat.drain()
    running.join(30)
    assert not running.is_alive()
    assert world.states(slow) == ["queued"]
    assert world.one("select closed_as from leases") == "released"
    assert not world.one("select count(*) from suspects where trial is not null or deaths > 1")
    assert lost(world) == 0


def test_a_trial_that_a_cancel_cuts_off_is_settled_as_closing(world: World, worker: Worker) -> None:
    slow = job(world, "slow [[sleep 600000]]")
    running = on_trial(world, worker, slow)
    world.cancel(slow, "job")
    worker.beat.once()
    running.join(30)
    assert not running.is_alive()
    assert world.find(slow).state == "cancelled"
    assert world.one("select closed_as from leases") == "settled"
    assert lost(world) == 0


def test_a_convicted_line_whose_end_was_not_recorded_is_not_counted(
    world: World, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = job(world, "poison")
    world.sql("insert into suspects (slice, line, deaths) select id, 1, 4 from slices where batch = :job", job=poison)
    monkeypatch.setattr(failpoint, "_armed", {})
    monkeypatch.setattr(failpoint, "_passed", Counter())
    failpoint.arm("slice.flushing=sleep:2")
    running = threading.Thread(target=worker.look)
    running.start()
    deadline = time.monotonic() + 20
    while not failpoint._passed["slice.flushing"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    world.reap(poison)  # it is convicted, and about to be recorded
    running.join(30)
    assert not running.is_alive()
    assert lost(world) == 1
    assert not world.one("select count(*) from counts where name = 'line_crashed' and value > 0")
    worker.look()
    assert world.find(poison).failed == 1
    assert world.one("select value from counts where name = 'line_crashed'") == 1


def test_a_full_claim_leads_to_the_next(world: World, engine: EngineContext) -> None:
    world.settings = world.settings.model_copy(update={"small_job_lines": 4})
    worker = Worker(world, engine)
    for n in range(6):
        job(world, f"say {n}")
    worker.look()
    assert [hint.kwargs["lane"] for hint in worker.said] == ["flex"]
    worker.said.clear()
    worker.look()
    assert worker.said == []


def test_who_waits_for_its_turn_to_claim_holds_no_slot(worker: Worker) -> None:
    drain = worker.drain
    with ThreadPoolExecutor(8) as threads:
        with worker.beat.claims:
            looks = [threads.submit(drain.one, Lane.STANDARD) for _ in range(8)]
            time.sleep(0.1)
            assert drain.slice_slots.held.get(Lane.STANDARD, 0) == 0
        assert [look.result() for look in looks] == ["nothing ready"] * 8, "each had its turn, and a slot"
    assert sum(drain.slice_slots.held.values()) == 0


def test_a_hint_of_a_lane_without_a_slot_does_not_wait_for_a_turn(worker: Worker) -> None:
    drain = worker.drain
    while drain.slice_slots.take(Lane.FLEX):
        pass
    with ThreadPoolExecutor(1) as threads, worker.beat.claims:
        assert threads.submit(drain.one, Lane.FLEX).result(5) == "no free slot for flex"


def test_hints_that_waited_for_a_turn_while_the_worker_was_drained_are_said_when_it_goes_on(worker: Worker) -> None:
    drain = worker.drain
    with ThreadPoolExecutor(3) as threads:
        with worker.beat.claims:
            looks = [threads.submit(drain.one, Lane.STANDARD) for _ in range(3)]
            time.sleep(0.1)
            worker.beat.drained = True
        assert [look.result() for look in looks] == ["the worker is drained"] * 3
    assert worker.said == []
    worker.beat.rest(False)
    drain.say_owed()
    assert worker.said == [hint.generate(MODEL, Lane.STANDARD)]


def test_a_hint_that_is_owed_just_after_a_slot_was_given_back_is_said(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between this one's look for a slot and its debt another slice ends, and says what is owed: nothing yet."""
    drain, slots = worker.drain, worker.drain.slice_slots
    while slots.take(Lane.FLEX):
        pass
    owe = slots.owe

    def ends(lane: Lane) -> None:
        slots.give(Lane.FLEX)
        drain.say_owed()
        owe(lane)

    monkeypatch.setattr(slots, "owe", ends)
    assert drain.one(Lane.FLEX) == "no free slot for flex"
    assert worker.said == [hint.generate(MODEL, Lane.FLEX)]
