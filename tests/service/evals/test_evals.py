"""Evals: runs are prepared and scored; what is wrong is told before anything is asked; leases are fenced."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
import sqlalchemy.exc
from service.desk import Desk, request
from service.eval_desk import EXACT, LONG, MODEL, EvalDesk, asked, completion, expecting
from sqlalchemy import text
from store.world import World

from penstock.domain.api_errors import (
    LeaseLost,
    NotFound,
    Unavailable,
)
from penstock.domain.evals.run import MOVES, RunFailed, RunState
from penstock.domain.evals.scorer import Scorer, ScorerKind
from penstock.service.control import delete
from penstock.service.evals import eval_work, prepare, runs
from penstock.service.evals.eval_work import WorkerEnds

# Preparing.


def test_a_run_asks_the_evals_lines_of_its_model_and_changes_nothing_else(house: EvalDesk, world: World) -> None:
    lines = asked(2, model="nobody") + b"\n\n" + request("q3", None, expected="three") + b"\n"
    eval = house.eval(lines=lines)
    id = house.run(eval, model=MODEL, changes={"temperature": 0}, lane="flex", completion_window="2h")
    house.do(id)
    run = house.find(eval, id)
    assert run.state is RunState.RUNNING
    batch = world.find(run.batch or "")
    assert (batch.state, batch.lane, batch.completion_window) == ("validating", "flex", "2h")
    assert batch.metadata == {prepare.NOTE: id}
    sent = [json.loads(line) for line in house.content(batch.input_file).splitlines()]
    assert [one["custom_id"] for one in sent] == ["q1", "q2", "q3"]
    assert {one["body"]["model"] for one in sent} == {MODEL}
    assert {one["body"]["temperature"] for one in sent} == {0}
    assert sent[2]["expected"] == "three"
    assert {one["body"]["max_tokens"] for one in sent} == {16}


@pytest.mark.parametrize(
    ("references", "why"),
    [
        (expecting({"q1": "a"}) + b'{"custom_id": "q2"}\n', "Line 2 of the references: it has no 'expected'."),
        (expecting({"q1": "a"}) * 2, "The references have custom_id 'q1' twice."),
        (b"\n \n", "The references have no line."),
        (b'{"custom_id": "q1", "expected": "' + b"x" * 3_000 + b'"}', "longer than 2000 bytes"),
        (expecting({f"q{n}": "a" for n in range(41)}), "more than 40 lines"),
    ],
)
def test_what_is_wrong_with_references_ends_a_run_before_anything_is_asked(
    house: EvalDesk, world: World, references: bytes, why: str
) -> None:
    id = house.run(house.eval(lines=asked(2), references=references), model=MODEL)
    with pytest.raises(RunFailed, match=re.escape(why)) as failed:
        house.do(id)
    assert failed.value.code == "invalid_reference"
    assert world.rows("select id from batches") == []


@pytest.mark.parametrize(
    ("lines", "code", "why"),
    [
        (b"not json", "invalid_json_line", "Line 1"),
        (asked(1) + b"\n" + request("q2", url="/v1/embeddings"), "url_mismatch", "Line 2"),
        (b"\n", "empty_file", "no line"),
        (request("q1", padding="x" * 3_000), "invalid_request", "longer than 2000"),
    ],
)
def test_what_is_wrong_with_the_evals_lines_does_too(
    house: EvalDesk, world: World, lines: bytes, code: str, why: str
) -> None:
    id = house.run(house.eval(lines=lines), model=MODEL)
    with pytest.raises(RunFailed, match=why) as failed:
        house.do(id)
    assert failed.value.code == code
    assert world.rows("select id from batches") == []


def test_a_file_that_is_gone_or_a_limit_that_is_reached_is_told(house: EvalDesk, world: World) -> None:
    eval = house.eval(lines=asked(2))
    gone, full = house.run(eval, model=MODEL), house.run(eval, model=MODEL)
    world.sql("update tenants set limits = '{\"open_batches\": 0}'")
    with pytest.raises(RunFailed, match="open_batches") as failed:
        house.do(full)
    assert failed.value.code == "rate_limit_exceeded"
    world.sql("update tenants set limits = '{\"files\": 1}'")
    crowded = house.run(eval, model=MODEL)
    with pytest.raises(RunFailed, match="The limit files"):
        house.do(crowded)
    world.sql("delete from files where purpose = 'evals'")
    with pytest.raises(RunFailed, match="deleted or has expired"):
        house.do(gone)


def test_a_run_of_a_batch_that_failed_says_why(house: EvalDesk, desk: Desk, world: World) -> None:
    eval = house.eval(lines=asked(2))
    id = house.run(eval, model="unknown")
    house.do(id)
    batch = house.find(eval, id).batch or ""
    desk.validate_it(batch)
    assert house.db.run(eval_work.move_on) == 1
    with pytest.raises(RunFailed, match="has failed: The model 'unknown' does not exist") as failed:
        house.do(id)
    assert failed.value.code == "batch_failed"
    world.sql("update eval_runs set lease_until = clock_timestamp() - interval '1 s'")
    work = house.claim(id)
    house.db.run(eval_work.fail, work, "batch_failed", "a NUL \0 and half \ud800")
    run = house.find(eval, id)
    assert (run.state, run.error) == (RunState.FAILED, {"code": "batch_failed", "message": "a NUL � and half ?"})


# Scoring.


def test_every_line_is_scored_whatever_the_order_of_lines_and_references(house: EvalDesk) -> None:
    expected = {f"q{n}": f"answer {n}" for n in range(12, 0, -1)} | {"q99": "nobody asks"}
    eval = house.eval(EXACT, LONG, lines=asked(12), references=expecting(expected))
    id = house.run(eval, model=MODEL)
    house.do(id)
    house.answer(house.find(eval, id).batch or "", lambda n: "no" if n == 5 else f" answer {n}\n", 12)
    assert house.db.run(eval_work.move_on) == 1
    house.do(id)
    run = house.find(eval, id)
    assert (run.state, run.scored) == (RunState.COMPLETED, 12)
    assert {name: (run.outcome or {})[name] for name in ("total", "passed", "failed", "errored")} == {
        "total": 12, "passed": 11, "failed": 1, "errored": 0,
    }  # fmt: skip
    found = house.lines(run)
    assert [one["custom_id"] for one in found] == sorted(expected.keys() - {"q99"})
    [wrong] = [one for one in found if not one["passed"]]
    assert wrong["custom_id"] == "q5"
    assert [score["reason"] for score in wrong["scores"]] == ["expected 'answer 5', got 'no'", "no match in 'no'"]
    view = house.db.run(runs.view, "acme", eval, id)
    assert view.batch is not None
    assert (view.batch.total, view.batch.done, view.batch.output_tokens, view.batch.currency) == (12, 12, 24, "EUR")
    assert float(view.batch.cost or 0) > 0


def test_a_line_may_say_itself_what_it_expects(house: EvalDesk) -> None:
    lines = request("a", expected="yes") + b"\n" + request("b", expected=["no", "yes"]) + b"\n" + request("c")
    run = house.scored(house.eval(), house.ended(3, lambda n: "yes", lines))
    assert [one["passed"] for one in house.lines(run)] == [True, True, False]
    assert house.lines(run)[2]["scores"][0] == {
        "name": "exact", "score": None, "passed": False, "reason": "nothing is expected of it",
    }  # fmt: skip
    [score] = (run.outcome or {})["scores"]
    assert (score["lines"], score["mean"], score["errors"]) == (2, 1.0, 1)


def test_a_line_that_the_model_failed_scores_nothing_and_one_that_was_never_asked_does_not_count(
    house: EvalDesk, desk: Desk, world: World
) -> None:
    eval = house.eval(LONG)
    batch = desk.validate(asked(12))
    desk.answer(batch, slices=1, failed=frozenset({2}), bodies={n: completion("long enough") for n in (1, 3, 4)})
    world.cancel(batch)
    desk.assemble(batch)
    run = house.scored(eval, batch)
    [score] = (run.outcome or {})["scores"]
    assert (score["lines"], score["passed"], score["failed"], score["errors"]) == (4, 3, 1, 8)
    reasons = {one["custom_id"]: one["scores"][0]["reason"] for one in house.lines(run)}
    assert reasons["q2"] == "no answer: 400"
    assert reasons["q9"] == "no answer: batch_cancelled"


def test_a_small_job_is_scored_as_a_batch_is(house: EvalDesk, world: World) -> None:
    job = world.job(3)
    world.drain(job)
    run = house.scored(house.eval(Scorer("any", ScorerKind.REGEX, pattern="^$")), job)
    assert (run.outcome or {})["total"] == 3


def test_where_no_line_can_be_scored_the_run_says_why(house: EvalDesk) -> None:
    eval = house.eval(references=expecting({"other": "x"}))
    id = house.run(eval, batch=house.ended(2, str))
    house.do(id)
    with pytest.raises(RunFailed, match="No line could be scored: nothing is expected of it") as failed:
        house.do(id)
    assert failed.value.code == "nothing_to_score"


def test_a_batch_that_is_deleted_meanwhile_ends_the_run(house: EvalDesk) -> None:
    eval = house.eval(LONG)
    batch = house.ended(2, str)
    id = house.run(eval, batch=batch)
    house.do(id)
    house.db.run(delete.delete, "acme", "batch", batch)
    with pytest.raises(RunFailed, match="was deleted"):
        house.do(id)
    own = house.run(house.eval(lines=asked(1)), model=MODEL)
    house.do(own)
    made = house.world.one("select batch from eval_runs where id = :id", id=own)
    house.answer(made, str, 1)
    house.db.run(delete.delete, "acme", "batch", made)
    assert house.db.run(eval_work.move_on) == 1, "a run does not wait for a batch that is gone"


def test_a_run_scored_twice_gives_the_same_bytes(house: EvalDesk) -> None:
    eval = house.eval(EXACT, LONG, references=expecting({f"q{n}": str(n) for n in range(1, 13)}))
    batch = house.ended(12, str)
    first, second = house.scored(eval, batch), house.scored(eval, batch)
    assert house.content(first.result_file) == house.content(second.result_file)
    assert first.outcome == second.outcome


def test_nearness_is_asked_of_an_embeddings_batch_and_a_line_without_one_says_why(
    house: EvalDesk, desk: Desk, world: World
) -> None:
    near = Scorer("near", ScorerKind.SIMILARITY, model=MODEL, threshold_milli=900)
    eval = house.eval(near, references=expecting({"q1": "one", "q2": "two", "q3": {"no": "text"}, "q4": "four"}))
    id = house.run(eval, batch=house.ended(5, lambda n: "" if n == 4 else f"answer {n}"))
    house.do(id)
    house.do(id)
    run = house.find(eval, id)
    assert run.state is RunState.EMBEDDING
    batch = world.find(run.embeddings or "")
    assert batch.endpoint == "/v1/embeddings"
    sent = [json.loads(line) for line in house.content(batch.input_file).splitlines()]
    assert [(one["custom_id"], one["body"]) for one in sent] == [
        ("q1", {"model": MODEL, "input": ["answer 1", "one"]}),
        ("q2", {"model": MODEL, "input": ["answer 2", "two"]}),
    ]
    desk.validate_it(batch.id)
    vectors = [{"index": 0, "embedding": [1.0, 0.0]}, {"index": 1, "embedding": [4.0, 3.0]}]
    desk.answer(batch.id, bodies={1: json.dumps({"data": vectors}).encode()}, failed=frozenset({2}))
    desk.assemble(batch.id)
    assert house.db.run(eval_work.move_on) == 1
    house.do(id)
    scores = {one["custom_id"]: one["scores"][0] for one in house.lines(house.find(eval, id))}
    assert (scores["q1"]["score"], scores["q1"]["passed"]) == (0.8, False)
    assert scores["q2"]["reason"] == "no embedding: 400"
    assert scores["q3"]["reason"] == "what is expected is no text"
    assert (scores["q4"]["score"], scores["q4"]["reason"]) == (0.0, "the answer is empty")
    assert scores["q5"]["reason"] == "nothing is expected of it"


# Leases.


def test_one_holder_at_a_time_and_who_comes_later_has_a_greater_lease(house: EvalDesk, world: World) -> None:
    eval = house.eval(LONG)
    id = house.run(eval, batch=house.ended(2, str))
    first = house.claim(id)
    assert house.db.run(eval_work.claim, id, world.settings) is None
    assert house.db.run(eval_work.waiting) is None
    world.sql("update eval_runs set lease_until = clock_timestamp() - interval '1 s'")
    assert house.db.run(eval_work.waiting) == id
    second = house.claim(id)
    assert second.lease > first.lease
    assert (first.attempt, second.attempt) == (1, 2)
    with pytest.raises(LeaseLost):
        house.db.run(eval_work.fail, first, "late", "late")
    with pytest.raises(LeaseLost):
        house.db.run(eval_work.completed, first, outcome={}, result_file="file-x", scored=1)
    house.db.run(eval_work.release, first)
    assert house.db.run(eval_work.claim, id, world.settings) is None, "what is another's is not given back"
    house.db.run(eval_work.release, second, counts=False)
    assert house.claim(id).attempt == 2, "what was put off is no attempt"


def test_a_run_that_is_cancelled_while_it_is_scored_stays_cancelled(house: EvalDesk, world: World) -> None:
    eval = house.eval(LONG)
    id = house.run(eval, batch=house.ended(2, str))
    house.do(id)
    clock = iter(range(0, 10_000, 100))
    hold = house.hold(id, clock=lambda: next(clock))
    house.db.run(runs.cancel, "acme", eval, id)
    with pytest.raises(LeaseLost):
        hold.tick()
    assert house.db.run(runs.cancel, "acme", eval, id).state is RunState.CANCELLED
    assert world.one("select count(*) from files where purpose = 'batch_output'") == 1, "the batch's own"
    house.db.run(runs.delete, "acme", eval, id)
    with pytest.raises(NotFound):
        house.find(eval, id)


def test_work_is_prolonged_now_and_then_and_survives_a_database_that_is_away_for_less_than_a_lease(
    house: EvalDesk, world: World
) -> None:
    eval = house.eval(LONG)
    id = house.run(eval, batch=house.ended(2, str))
    now, stops = [0.0], [False]
    hold = house.hold(id, clock=lambda: now[0], stops=lambda: stops[0])
    hold.scored = 7
    hold.tick()
    assert house.find(eval, id).scored == 0, "not at every line"
    now[0] = 6.0
    hold.tick()
    assert house.find(eval, id).scored == 7

    class Away:
        def run(self, *_: Any) -> None:
            raise Unavailable

    hold._db = Away()  # type: ignore[assignment] # a database that is away, without taking one away
    now[0] = 12.0
    hold.tick()
    now[0] = 30.0
    with pytest.raises(Unavailable):
        hold.tick()
    stops[0], now[0] = True, 40.0
    with pytest.raises(WorkerEnds):
        hold.tick()


def test_hints_of_what_nobody_took_are_said_again(house: EvalDesk, world: World) -> None:
    eval = house.eval(LONG)
    id = house.run(eval, batch=house.ended(2, str))
    world.said.clear()
    assert house.db.run(eval_work.hint_again, world.settings) == 0, "it was hinted just now"
    world.sql("update eval_runs set hinted_at = clock_timestamp() - interval '1 hour'")
    assert house.db.run(eval_work.hint_again, world.settings) == 1
    assert [(hint.task, hint.kwargs) for hint in world.said] == [("penstock.evaluate", {"id": id})]
    house.claim(id)
    world.sql("update eval_runs set hinted_at = null")
    assert house.db.run(eval_work.hint_again, world.settings) == 0, "it is held"


def test_the_database_allows_the_moves_of_the_table_and_no_others(house: EvalDesk, world: World) -> None:
    eval = house.eval(LONG)
    id = house.run(eval, batch=house.ended(1, str))
    move = """
        update eval_runs set state = :to, scored = scored + 1,
            ended_at = case when :to in ('completed', 'failed', 'cancelled') then clock_timestamp() end,
            error = case when :to = 'failed' then cast('{}' as jsonb) end
        where id = :id"""
    for was, to in itertools.permutations(RunState, 2):
        with world.db.engine.connect() as conn:  # never committed
            conn.execute(text("alter table eval_runs disable trigger eval_run_moves"))
            conn.execute(text(move), {"id": id, "to": was})
            conn.execute(text("alter table eval_runs enable trigger eval_run_moves"))
            if to in MOVES[was]:
                conn.execute(text(move), {"id": id, "to": to})
                continue
            with pytest.raises(sqlalchemy.exc.IntegrityError, match=f"is {was} and can't become {to}"):
                conn.execute(text(move), {"id": id, "to": to})
