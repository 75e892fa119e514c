"""The io worker's tasks for evals: one at a time, given back when a server is away, given up after three deaths."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from service.eval_desk import MODEL, EvalDesk, asked
from service.failing import AWAY, FULL, FailingDatabase, FailingStore, Fault, install
from store.world import World

from penstock.domain.api_errors import NoSpace, Unavailable
from penstock.domain.evals.run import RunState
from penstock.domain.evals.scorer import Scorer, ScorerKind
from penstock.service.core.transaction import Database
from penstock.service.evals import comparisons, task
from penstock.settings import Settings
from penstock.store.engine import sync_engine
from penstock_worker.io.eval_tasks import EvalTasks
from penstock_worker.runtime.beat import Beat

LONG = Scorer("long", ScorerKind.REGEX, pattern=".")


@pytest.fixture
def beat(world: World) -> Beat:
    return Beat(world.db, world.keeper, world.settings)


@pytest.fixture
def tasks(house: EvalDesk, world: World, beat: Beat) -> EvalTasks:
    return EvalTasks(world.db, house.desk.blobs, beat, world.settings)


@pytest.fixture
def eval_id(house: EvalDesk) -> str:
    return house.eval(LONG)


def runs_of(house: EvalDesk, eval: str, count: int) -> list[str]:
    batch = house.ended(2, str)
    return [house.run(eval, batch=batch) for _ in range(count)]


def test_one_hint_is_enough_for_all_that_waits(house: EvalDesk, tasks: EvalTasks, eval_id: str) -> None:
    first, second = runs_of(house, eval_id, 2)
    told = tasks.run(first)
    assert told.startswith(f"{first} · prepared · ")
    assert {house.find(eval_id, id).state for id in (first, second)} == {RunState.COMPLETED}
    one = house.db.run(
        comparisons.create, "acme", eval_id, baseline=first, candidate=second, settings=house.world.settings
    )
    assert tasks.look() is True
    assert house.db.run(comparisons.get, "acme", eval_id, one.id).state == "completed"
    assert tasks.look() is False


def test_a_run_that_can_not_be_scored_has_failed_with_the_reason(
    house: EvalDesk, tasks: EvalTasks, world: World
) -> None:
    eval = house.eval(LONG, lines=b"not json")
    id = house.run(eval, model=MODEL)
    assert "failed: invalid_json_line" in tasks.run(id)
    run = house.find(eval, id)
    assert (run.state, (run.error or {})["code"]) == (RunState.FAILED, "invalid_json_line")
    assert "nothing to do" in tasks.run(id)
    assert world.rows("select id from batches") == []


def test_odd_ids_are_nothing_to_do(tasks: EvalTasks) -> None:
    for id in ("", "evalrun_x", "evalcmp_x", "batch_x", "x" * 10_000):
        assert "nothing to do" in tasks.run(id)


def test_results_that_are_missing_end_the_run(
    house: EvalDesk, tasks: EvalTasks, eval_id: str, settings: Settings
) -> None:
    [id] = runs_of(house, eval_id, 1)
    for blob in Path(settings.blob_url.removeprefix("file://")).rglob("files/*"):
        blob.unlink()
    tasks.run(id)
    assert (house.find(eval_id, id).error or {})["code"] == "results_gone"


@pytest.mark.parametrize(("when", "message"), [("before", AWAY), ("after", AWAY), ("before", FULL)])
def test_whatever_call_fails_once_the_run_is_scored_with_the_same_bytes(
    house: EvalDesk, world: World, when: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each transaction and each call of the blob store in turn, from the claim to the last commit."""
    fault = Fault()
    db = Database(sync_engine(world.settings.database_url, connections=4), lambda hints: None)
    FailingDatabase(db.engine, fault)
    beat = Beat(db, world.keeper, world.settings.model_copy(update={"close_grace_seconds": 0.0}))
    io = EvalTasks(db, house.desk.blobs, beat, world.settings)
    batch = house.ended(3, lambda n: "yes" * (n != 2))
    eval = house.eval(LONG, lines=asked(3))
    wanted = house.content(house.scored(eval, batch).result_file)
    install(monkeypatch, FailingStore(fault))

    def live(**terms: Any) -> str:
        id = house.run(eval, **terms)
        for _ in range(6):
            with suppress(Unavailable, NoSpace):
                while io.look():
                    pass
            # A claim whose answer was lost is nobody's until its time is over.
            world.sql("update eval_runs set lease_until = clock_timestamp() - interval '1 s' where lease is not null")
        return id

    fault.set()
    live(batch=batch)
    calls, found = len(fault.calls), set()
    for at in range(1, calls + 1):
        fault.set(at, when, message)
        id = live(batch=batch)
        found.add(fault.struck)
        fault.set()
        run = house.find(eval, id)
        assert run.state is RunState.COMPLETED, (fault.struck, at, run.error)
        assert house.content(run.result_file) == wanted
    assert "transaction" in found
    assert any("writer" in call for call in found)

    for at in range(1, 12):
        fault.set(at, when, message)
        id = live(model=MODEL)
        fault.set()
        assert house.find(eval, id).state is RunState.RUNNING, at
        mine = "select count(*) from batches where metadata ->> 'penstock_eval_run' = :id"
        assert world.one(mine, id=id) == 1, "its batch is made once"
    db.close()


def test_what_dies_again_and_again_is_given_up(
    house: EvalDesk, tasks: EvalTasks, eval_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [id] = runs_of(house, eval_id, 1)

    def dies(*_: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr("penstock.service.evals.task.do", dies)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            tasks.run(id)
    assert "failed: internal_error" in tasks.run(id)
    assert house.find(eval_id, id).state is RunState.FAILED


def test_a_worker_that_is_drained_or_ends_takes_none(
    house: EvalDesk, tasks: EvalTasks, beat: Beat, eval_id: str
) -> None:
    [id] = runs_of(house, eval_id, 1)
    for name in ("drained", "draining"):
        setattr(beat, name, True)
        assert tasks.look() is False
        assert "takes nothing new" in tasks.run(id)
        setattr(beat, name, False)
    assert tasks.look() is True


def test_a_worker_that_ends_gives_back_what_it_is_at(
    house: EvalDesk, beat: Beat, eval_id: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    [id] = runs_of(house, eval_id, 1)
    settings = world.settings.model_copy(update={"beat_seconds": 1e-9})
    eager = EvalTasks(world.db, house.desk.blobs, beat, settings)
    do = task.do

    def ends(*arguments: Any) -> str:
        beat.draining = True
        return do(*arguments)

    monkeypatch.setattr("penstock.service.evals.task.do", ends)
    world.sql("update eval_runs set state = 'scoring'")
    assert "given back" in eager.run(id)
    row = world.rows("select state, attempts, lease from eval_runs where id = :id", id=id)[0]
    assert tuple(row) == ("scoring", 0, None), "it was no attempt, and is free"
