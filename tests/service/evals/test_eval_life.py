"""Evals: runs are compared, limited, cancelled, swept and kept apart by tenant."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
from service.broom import blobs, named, once
from service.desk import Desk, request
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
from penstock.domain.models.demand import Demand
from penstock.domain.models.version import STABLE, Definition
from penstock.domain.work.holder import Holder
from penstock.service.evals import comparisons, eval_work, evals, runs
from penstock.service.lifecycle import work
from penstock.service.models import aliases, demands, versions
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
    again = house.db.run(
        comparisons.create, "acme", eval, baseline=before.id, candidate=after.id, settings=house.world.settings
    )
    assert again.id == done.id
    house.db.run(runs.delete, "acme", eval, before.id)
    with pytest.raises(NotFound):
        house.db.run(comparisons.get, "acme", eval, done.id)


def test_results_that_were_deleted_are_told_and_a_failed_comparison_may_be_asked_for_again(
    house: EvalDesk, world: World
) -> None:
    eval, batch = house.eval(LONG), house.ended(2, str)
    first, second = house.scored(eval, batch), house.scored(eval, batch)
    asked_for = house.db.run(
        comparisons.create, "acme", eval, baseline=first.id, candidate=second.id, settings=house.world.settings
    )
    world.sql("delete from files where id = :id", id=second.result_file)
    with pytest.raises(RunFailed, match="deleted or has expired"):
        house.do(asked_for.id)
    world.sql("update eval_comparisons set lease_until = clock_timestamp() - interval '1 s'")
    house.db.run(eval_work.fail, house.claim(asked_for.id), "results_gone", "gone")
    failed = house.db.run(comparisons.get, "acme", eval, asked_for.id)
    assert (failed.state, failed.error) == ("failed", {"code": "results_gone", "message": "gone"})
    again = house.db.run(
        comparisons.create, "acme", eval, baseline=first.id, candidate=second.id, settings=house.world.settings
    )
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
        house.db.run(
            comparisons.create,
            "acme",
            eval,
            baseline=run,
            candidate=house.run(eval, model=MODEL),
            settings=house.world.settings,
        )
    with pytest.raises(BadRequest, match="itself"):
        house.db.run(comparisons.create, "acme", eval, baseline=run, candidate=run, settings=house.world.settings)
    with pytest.raises(Conflict, match="cancel it"):
        house.db.run(runs.delete, "acme", eval, run)
    with pytest.raises(Conflict, match="cancel it first"):
        house.db.run(evals.delete, "acme", eval)
    assert CHAT in world.one("select endpoint from evals where id = :id", id=eval)


def test_nothing_grows_beyond_its_limit(house: EvalDesk, world: World) -> None:
    world.settings = world.settings.model_copy(update={"max_evals": 2, "max_eval_runs": 3, "max_open_eval_runs": 2})
    eval = house.eval(LONG, lines=asked(1))
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
    world.settings = world.settings.model_copy(update={"max_eval_runs": 9, "max_eval_comparisons": 1})
    batch = house.ended(2, str)
    first, second, third = (house.scored(eval, batch).id for _ in range(3))
    house.compared(eval, first, second)
    terms = {"settings": world.settings}
    assert (
        house.db.run(comparisons.create, "acme", eval, baseline=first, candidate=second, **terms).state == "completed"
    )
    with pytest.raises(TooMany, match="1 comparisons, as many"):
        house.compared(eval, second, first)
    world.settings = world.settings.model_copy(update={"max_eval_comparisons": 9, "max_open_eval_runs": 0})
    with pytest.raises(TooMany, match="comparisons that have not ended"):
        house.compared(eval, first, third)


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


def test_the_batches_of_a_run_count_for_the_key_that_asked_for_it(house: EvalDesk, world: World) -> None:
    eval = house.eval(LONG, lines=asked(2))
    run = house.run(eval, model=MODEL, api_key="key_nightly")
    house.do(run)
    made = house.find(eval, run).batch
    assert world.one("select api_key from batches where id = :id", id=made) == "key_nightly"


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


# What an alias demands.


def versions_of_model(world: World, count: int, model: str = MODEL) -> None:
    for number in range(count):
        holder = Holder(uuid.uuid4(), "gpu", model, "host", 1)
        world.db.run(work.register, holder, "ready", 8)
        world.db.run(versions.serve, holder, Definition("/models/tiny", "echo"), f"r{number}")


def test_a_share_grows_only_once_a_run_of_that_version_has_shown_the_demanded_lower_bound(
    house: EvalDesk, world: World
) -> None:
    versions_of_model(world, 3)
    eval = house.eval(EXACT, lines=asked(20), references=expecting({f"q{n}": "right" for n in range(1, 21)}))
    run = house.db.run
    run(aliases.demand, MODEL, STABLE, Demand("acme", eval, "exact", 0.83))
    with pytest.raises(Conflict, match=f"of {MODEL}@v2 no completed run"):
        run(aliases.promote, MODEL, 2, STABLE, 10)
    id = house.run(eval, model=f"{MODEL}@v2")
    house.do(id)
    house.answer(house.find(eval, id).batch or "", lambda n: "right", 20)
    run(eval_work.move_on)
    house.do(id)
    assert run(aliases.promote, MODEL, 2, STABLE, 10).demand is not None, "it stands on"
    with pytest.raises(Conflict, match="v3"):
        run(aliases.change, MODEL, STABLE, {2: 50, 3: 50})
    run(aliases.demand, MODEL, STABLE, Demand("acme", eval, "exact", 0.85))
    with pytest.raises(Conflict, match=r"its best run shows 0\.8"):
        run(aliases.promote, MODEL, 2, STABLE, 50)
    split = run(aliases.rollback, MODEL).split
    assert split is not None
    assert dict(split.weights) == {1: 100}, "a rollback is not asked for it"
    run(aliases.demand, MODEL, STABLE, None)
    run(aliases.promote, MODEL, 3)


def test_a_demand_is_met_by_a_scored_batch_of_the_evals_lines_by_that_version_alone_and_of_the_demanding_tenant(
    house: EvalDesk, world: World
) -> None:
    versions_of_model(world, 2)
    right, references = (lambda n: "right"), expecting({f"q{n}": "right" for n in range(1, 21)})
    eval = house.eval(EXACT, lines=asked(20, model=f"{MODEL}@v2"), references=references)
    house.scored(eval, house.again(eval, 20, right))
    demand = Demand("acme", eval, "exact", 0.5)
    assert bound(house, 2, demand) > 0.8
    assert bound(house, 1, demand) is None
    assert bound(house, 2, replace(demand, tenant="stranger")) is None
    assert bound(house, 2, replace(demand, scorer="other")) is None
    both = asked(10, model=f"{MODEL}@v1") + b"\n" + b"\n".join(
        request(f"q{n}", model=f"{MODEL}@v2") for n in range(11, 21)
    )  # fmt: skip
    mixed = house.eval(EXACT, lines=both, references=references)
    house.scored(mixed, house.again(mixed, 20, right))
    assert bound(house, 2, replace(demand, eval=mixed)) is None
    for wrong, error in ((replace(demand, eval="eval_none"), NotFound), (replace(demand, scorer="none"), BadRequest)):
        with pytest.raises(error):
            house.db.run(aliases.demand, MODEL, STABLE, wrong)


def bound(house: EvalDesk, number: int, demand: Demand) -> float | None:
    return house.db.run(demands.lower_bound, MODEL, number, demand)


def test_easier_lines_other_settings_and_another_models_name_prove_nothing(house: EvalDesk, world: World) -> None:
    other = f"{MODEL}@other"  # a model of its own, and no alias
    versions_of_model(world, 2), versions_of_model(world, 2, other)
    house.db.run(aliases.promote, other, 2), house.db.run(aliases.change, MODEL, "canary", {2: 100})
    lines, references = asked(20, model=f"{MODEL}@v2"), expecting({f"q{n}": "right" for n in range(1, 21)})
    eval = house.eval(EXACT, lines=lines, references=references)
    demand = Demand("acme", eval, "exact", 0.5)
    house.scored(eval, house.ended(20, lambda n: "right", lines))
    assert bound(house, 2, demand) is None, "the same lines in another file, which nobody has looked at"
    id = house.run(eval, model=f"{MODEL}@v2", changes={"guided_choice": ["right"]})
    house.do(id)
    house.answer(house.find(eval, id).batch or "", lambda n: "right", 20)
    house.db.run(eval_work.move_on)
    house.do(id)
    assert house.find(eval, id).state == "completed"
    assert bound(house, 2, demand) is None, "it was told what to say"
    for asks, counts in ((f"{MODEL}@canary", True), (other, False)):
        named = house.eval(EXACT, lines=asked(20, model=asks), references=references)
        house.scored(named, house.again(named, 20, lambda n: "right"))
        assert (bound(house, 2, replace(demand, eval=named)) is not None) == counts, asks
    with pytest.raises(BadRequest, match="no input_file_id"):
        house.db.run(aliases.demand, MODEL, STABLE, replace(demand, eval=house.eval(EXACT)))


def test_a_demand_whose_eval_was_deleted_refuses_and_says_so(house: EvalDesk, world: World) -> None:
    versions_of_model(world, 2)
    eval = house.eval(EXACT, lines=asked(1))
    house.db.run(aliases.demand, MODEL, STABLE, Demand("acme", eval, "exact", 0.5))
    house.db.run(evals.delete, "acme", eval)
    with pytest.raises(Conflict, match="that eval was deleted: demand another one, or nothing"):
        house.db.run(aliases.promote, MODEL, 2)


def test_a_worker_that_may_promote_itself_does_not_where_something_is_demanded(house: EvalDesk, world: World) -> None:
    versions_of_model(world, 1)
    eval = house.eval(EXACT, lines=asked(1))
    house.db.run(aliases.demand, MODEL, STABLE, Demand("acme", eval, "exact", 0.5))
    holder = Holder(uuid.uuid4(), "gpu", MODEL, "host", 1)
    world.db.run(work.register, holder, "ready", 8)
    made = world.db.run(versions.serve, holder, Definition("/models/tiny", "echo"), "newer", promoted=True)
    found = world.db.run(aliases.get, MODEL, STABLE)
    assert (made.number, found.split and dict(found.split.weights)) == (2, {1: 100})
    assert found.demand is not None
