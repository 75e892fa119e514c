"""Evals: runs are compared, limited, cancelled, swept and kept apart by tenant."""

from __future__ import annotations

import pytest
from service.broom import blobs, named, once
from service.desk import Desk
from service.eval_desk import CHAT, EXACT, LONG, MODEL, EvalDesk, asked, expecting
from store.world import World

from penstock.domain.api_errors import (
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    TooMany,
)
from penstock.domain.evals.run import RunFailed
from penstock.domain.evals.scorer import Scorer, ScorerKind
from penstock.service.admin import eval_proof
from penstock.service.evals import comparisons, eval_work, evals, runs
from penstock.settings import Settings

# Comparing.


def test_two_runs_are_compared_line_by_line(house: EvalDesk) -> None:
    eval = house.eval(EXACT, references=expecting({f"q{n}": "right" for n in range(1, 41)}))
    before = house.scored(eval, house.ended(40, lambda n: "right" if n <= 20 else "wrong"))
    after = house.scored(eval, house.ended(30, lambda n: "right" if n > 2 else "wrong", asked(30)))
    done = house.compared(eval, before.id, after.id)
    outcome = done.outcome or {}
    assert outcome["lines"] == {"paired": 30, "only_baseline": 10, "only_candidate": 0}
    [score] = outcome["scores"]
    assert (score["better"], score["worse"], score["same"]) == (10, 2, 18)
    assert score["difference"] == pytest.approx(8 / 30, abs=1e-6)
    assert score["verdict"] == "better"
    again = house.db.run(comparisons.create, "acme", eval, baseline=before.id, candidate=after.id)
    assert again.id == done.id
    house.db.run(runs.delete, "acme", eval, before.id)
    with pytest.raises(NotFound):
        house.db.run(comparisons.get, "acme", eval, done.id)


def test_results_that_were_deleted_are_told_and_a_failed_comparison_may_be_asked_for_again(
    house: EvalDesk, world: World
) -> None:
    eval, batch = house.eval(LONG), house.ended(2, str)
    first, second = house.scored(eval, batch), house.scored(eval, batch)
    asked_for = house.db.run(comparisons.create, "acme", eval, baseline=first.id, candidate=second.id)
    world.sql("delete from files where id = :id", id=second.result_file)
    with pytest.raises(RunFailed, match="deleted or has expired"):
        house.do(asked_for.id)
    world.sql("update eval_comparisons set lease_until = clock_timestamp() - interval '1 s'")
    house.db.run(eval_work.fail, house.claim(asked_for.id), "results_gone", "gone")
    failed = house.db.run(comparisons.get, "acme", eval, asked_for.id)
    assert (failed.state, failed.error) == ("failed", {"code": "results_gone", "message": "gone"})
    again = house.db.run(comparisons.create, "acme", eval, baseline=first.id, candidate=second.id)
    assert (again.id, again.state) == (asked_for.id, "comparing")


# What is refused, kept and removed.


def test_creates_that_can_not_be_run_are_refused(house: EvalDesk, desk: Desk, world: World) -> None:
    eval, without = house.eval(lines=asked(1)), house.eval()
    with pytest.raises(BadRequest, match="no input_file_id"):
        house.run(without, model=MODEL)
    with pytest.raises(NotFound):
        house.run(eval, batch="batch_x")
    with pytest.raises(Conflict, match="once it has ended"):
        house.run(eval, batch=desk.validate(asked(1)))
    with pytest.raises(Conflict, match="before it had answers"):
        house.run(eval, batch=desk.validate(b"not json"))
    with pytest.raises(Forbidden):
        house.run(eval, model=MODEL, allowed_models=frozenset({"other"}))
    near = house.eval(Scorer("n", ScorerKind.SIMILARITY, model="embed"), lines=asked(1))
    with pytest.raises(Forbidden):
        house.run(near, model=MODEL, allowed_models=frozenset({MODEL}))
    with pytest.raises(BadRequest):
        house.run(eval, model=MODEL, completion_window="tomorrow")
    with pytest.raises(NotFound):
        house.run("eval_x", model=MODEL)
    run = house.run(eval, model=MODEL)
    with pytest.raises(Conflict, match="only completed"):
        house.db.run(comparisons.create, "acme", eval, baseline=run, candidate=house.run(eval, model=MODEL))
    with pytest.raises(BadRequest, match="itself"):
        house.db.run(comparisons.create, "acme", eval, baseline=run, candidate=run)
    with pytest.raises(Conflict, match="cancel it"):
        house.db.run(runs.delete, "acme", eval, run)
    with pytest.raises(Conflict, match="cancel it first"):
        house.db.run(evals.delete, "acme", eval)
    assert CHAT in world.one("select endpoint from evals where id = :id", id=eval)


def test_nothing_grows_beyond_its_limit(house: EvalDesk, world: World) -> None:
    world.settings = world.settings.model_copy(update={"max_evals": 2, "max_eval_runs": 3, "max_open_eval_runs": 2})
    eval = house.eval(lines=asked(1))
    house.eval()
    with pytest.raises(TooMany, match="2 evals"):
        house.eval()
    ids = [house.run(eval, model=MODEL) for _ in range(2)]
    with pytest.raises(TooMany, match="not ended"):
        house.run(eval, model=MODEL)
    for id in ids:
        house.db.run(runs.cancel, "acme", eval, id)
    house.run(eval, model=MODEL)
    with pytest.raises(TooMany, match="delete some"):
        house.run(eval, model=MODEL)


def test_a_cancelled_run_cancels_the_batch_that_was_made_for_it_and_no_other(house: EvalDesk, world: World) -> None:
    eval = house.eval(LONG, lines=asked(2))
    own = house.run(eval, model=MODEL)
    house.do(own)
    made = house.find(eval, own).batch or ""
    house.db.run(runs.cancel, "acme", eval, own)
    assert world.find(made).finish_as == "cancelled"
    batch = house.ended(2, str)
    other = house.run(eval, batch=batch)
    house.db.run(runs.cancel, "acme", eval, other)
    assert world.find(batch).state == "completed"
    done = house.scored(eval, batch)
    with pytest.raises(Conflict):
        house.db.run(runs.cancel, "acme", eval, done.id)


def test_runs_go_with_the_batches_of_their_time_and_leave_nothing(
    house: EvalDesk, world: World, settings: Settings
) -> None:
    eval, batch = house.eval(LONG), house.ended(2, str)
    first, second = house.scored(eval, batch), house.scored(eval, batch)
    house.compared(eval, first.id, second.id)
    once(house.desk)
    assert len(house.db.run(runs.page, "acme", eval, after=None, limit=10)) == 2
    world.sql("update tenants set batch_retention_days = 1")
    world.sql("alter table eval_runs disable trigger eval_run_moves")
    world.sql("update eval_runs set ended_at = ended_at - interval '2 days' where id = :id", id=first.id)
    world.sql("alter table eval_runs enable trigger eval_run_moves")
    assert once(house.desk)["old_eval_runs"] == 1
    assert [view.run.id for view in house.db.run(runs.page, "acme", eval, after=first.id, limit=10)] == []
    assert [view.run.id for view in house.db.run(runs.page, "acme", eval, after=None, limit=10)] == [second.id]
    assert world.rows("select * from eval_comparisons") == []
    assert world.rows("select * from files where id = :id", id=first.result_file) == []
    house.db.run(evals.delete, "acme", eval)
    once(house.desk)
    assert blobs(settings) == named(world)
    assert world.rows("select * from eval_runs") == []


def test_a_promotion_may_ask_for_a_lower_bound(house: EvalDesk, world: World) -> None:
    eval = house.eval(EXACT, lines=asked(20), references=expecting({f"q{n}": "right" for n in range(1, 21)}))
    id = house.run(eval, model=MODEL)
    house.do(id)
    asks = {"eval": eval, "model": MODEL, "scorer": "exact"}
    assert not house.db.run(eval_proof.is_proven, "acme", **asks, at_least=0.0), "it has not completed"
    house.answer(house.find(eval, id).batch or "", lambda n: "right", 20)
    house.db.run(eval_work.move_on)
    house.do(id)
    assert house.db.run(eval_proof.is_proven, "acme", **asks, at_least=0.83)
    assert not house.db.run(eval_proof.is_proven, "acme", **asks, at_least=0.85), "twenty of twenty prove no more"
    assert not house.db.run(eval_proof.is_proven, "acme", **(asks | {"model": "other"}), at_least=0.1)
    assert not house.db.run(eval_proof.is_proven, "stranger", **asks, at_least=0.1)


def test_a_stranger_finds_nothing(house: EvalDesk, world: World) -> None:
    world.tenant("stranger")
    eval, batch = house.eval(LONG), house.ended(2, str)
    run = house.scored(eval, batch)
    for look in (
        lambda tx: evals.get(tx, "stranger", eval),
        lambda tx: evals.delete(tx, "stranger", eval),
        lambda tx: runs.get(tx, "stranger", eval, run.id),
        lambda tx: runs.page(tx, "stranger", eval, after=None, limit=5),
        lambda tx: runs.cancel(tx, "stranger", eval, run.id),
        lambda tx: runs.delete(tx, "stranger", eval, run.id),
    ):
        with pytest.raises(NotFound):
            house.db.run(look)
    own = house.eval(LONG, tenant="stranger")
    with pytest.raises(NotFound):
        house.run(own, tenant="stranger", batch=batch)
    assert house.db.run(eval_work.claim, "eval_x", world.settings) is None
