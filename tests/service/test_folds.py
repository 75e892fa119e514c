"""Folds: what an ensemble's members said of a line becomes one answer, wave after wave, whatever befalls the batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from service.desk import Desk
from service.fold_desk import FoldDesk, refusal
from store import as_holder
from store.world import CHAT, World

from penstock.domain.api_errors import LeaseLost, NotFound
from penstock.domain.limits.limit import LimitName
from penstock.domain.line_errors import CRASHED
from penstock.formats import input as lines
from penstock.formats import output, plan
from penstock.service.admin import health, limits, models, prices
from penstock.service.core.ids import blob_key
from penstock.service.core.transaction import Transaction
from penstock.service.ensembles import ensembles
from penstock.service.lifecycle import dispatch, folds, work
from penstock.service.results.folding import Folding
from penstock.service.views import batch_view, member_progress
from penstock.store import sweep
from penstock.store.accounts import limits as kept
from penstock.store.models import ensembles as rows

VOTE: dict[str, Any] = {
    "name": "panel",
    "kind": "vote",
    "members": [{"model": "a"}, {"model": "b"}, {"model": "c"}],
    "min_responses": 2,
}
FALLBACK: dict[str, Any] = {"name": "safe", "kind": "fallback", "members": [{"model": m} for m in "abc"]}
CASCADE: dict[str, Any] = {
    "name": "steps",
    "kind": "cascade",
    "members": [{"model": "a"}, {"model": "b"}],
    "accept": {"regex": "^good"},
}


@pytest.fixture
def folded(desk: Desk, world: World) -> Iterator[FoldDesk]:
    for member in "abc":
        world.db.run(models.add, member)
    for one in (VOTE, FALLBACK, CASCADE):
        world.db.run(ensembles.add, one)
    yield FoldDesk(desk)
    world.check()


def test_a_batch_has_a_slice_for_each_member_and_counts_its_own_lines_alone(folded: FoldDesk, world: World) -> None:
    batch = folded.batch("panel")
    rows = [(row.model, row.place, row.state, row.lines) for row in world.slices(batch)]
    assert rows == [(None, None, "waiting", 4), ("a", 0, "ready", 4), ("b", 1, "ready", 4), ("c", 2, "ready", 4)]
    found = world.find(batch)
    assert (found.total, found.versions) == (4, {"panel": [1]})
    folded.says("a", str)
    folded.says("b", str)
    assert folded.due(batch) is None, "c has not answered"
    assert world.find(batch).completed == 0
    folded.says("c", lambda n: "other")
    assert folded.fold(batch) == 0
    found = world.find(batch)
    assert (found.state, found.completed, found.failed) == ("finalizing", 4, 0)
    assert found.usage.input_tokens == 4 * 3 * 3, "all members' tokens"
    assert folded.results(batch) == {f"q{n}": (f"{n}", "a") for n in range(1, 5)}


def test_a_vote_without_enough_answers_is_its_lines_error_with_each_members_reason(folded: FoldDesk) -> None:
    batch = folded.batch("panel", 3)
    folded.says("a", lambda n: 400 if n < 3 else "x")
    folded.says("b", lambda n: 429 if n == 1 else "x")
    folded.says("c", lambda n: 500 if n < 3 else "y")
    folded.fold(batch)
    assert folded.results(batch) == {"q1": "ensemble_quorum", "q2": "ensemble_quorum", "q3": ("x", "a")}


def test_an_answer_with_half_a_character_is_that_lines_answer_and_no_trouble_of_its_batch(folded: FoldDesk) -> None:
    batch = folded.batch("panel", count=2)
    folded.says("a", lambda n: "half \ud83d" if n == 1 else "yes")
    for member in "bc":
        folded.says(member, lambda _: "yes")
    folded.fold(batch)
    assert folded.results(batch) == {"q1": ("yes", "b"), "q2": ("yes", "a")}


def test_how_far_each_member_is_says_what_it_was_asked_and_what_hangs_on_those_before_it(
    folded: FoldDesk, world: World
) -> None:
    batch = folded.batch("safe")

    def progress(tenant: str = "acme") -> list[tuple[str, int, int, int, int, int]]:
        found = world.db.run(member_progress.of_batch, tenant, "batch", batch)
        assert {one.ensemble for one in found} == {"safe@v1"}
        return [(one.model, one.asked, one.answered, one.failed, one.left, one.undecided) for one in found]

    assert progress() == [("a", 4, 0, 0, 4, 0), ("b", 0, 0, 0, 0, 4), ("c", 0, 0, 0, 0, 4)]
    folded.says("a", lambda n: 500 if n % 2 else "a")
    folded.fold(batch)
    assert progress() == [("a", 4, 2, 2, 0, 0), ("b", 2, 0, 0, 2, 0), ("c", 0, 0, 0, 0, 4)]
    folded.says("b", lambda n: "b")
    folded.fold(batch)
    assert progress() == [("a", 4, 2, 2, 0, 0), ("b", 2, 2, 0, 0, 0), ("c", 0, 0, 0, 0, 0)]
    with pytest.raises(NotFound):
        progress("stranger")
    plain = world.batch(2, model="a")
    assert world.db.run(member_progress.of_batch, "acme", "batch", plain) == []


def test_each_wave_asks_only_the_lines_that_need_it(folded: FoldDesk, world: World) -> None:
    batch = folded.batch("safe")
    assert [(row.place, row.state) for row in world.slices(batch)] == [
        (None, "waiting"), (0, "ready"), (1, "waiting"), (2, "waiting"),
    ]  # fmt: skip
    folded.says("a", lambda n: 500 if n % 2 else "a")
    assert folded.claim("b") is None, "nobody asked it yet"
    assert folded.fold(batch) == 2
    assert (world.find(batch).completed, world.find(batch).state) == (2, "in_progress")
    assert folded.says("b", lambda n: 400 if n == 3 else "b") == [1, 3]
    assert folded.fold(batch) == 1
    assert folded.says("c", lambda n: 400) == [3]
    assert folded.fold(batch) == 0
    assert folded.results(batch) == {
        "q1": ("b", "b"), "q2": ("a", "a"), "q3": "ensemble_quorum", "q4": ("a", "a"),
    }  # fmt: skip


def test_members_that_are_not_needed_are_asked_nothing(folded: FoldDesk, world: World) -> None:
    batch = folded.batch("steps")
    folded.says("a", lambda n: "good")
    assert folded.fold(batch) == 0
    assert [(row.place, row.state) for row in world.slices(batch)] == [(None, "done"), (0, "done"), (1, "dropped")]
    assert set(folded.results(batch).values()) == {("good", "a")}


def test_an_answer_that_was_not_good_enough_is_given_if_later_members_fail(folded: FoldDesk) -> None:
    batch = folded.batch("steps", 2)
    folded.says("a", lambda n: "bad")
    assert folded.fold(batch) == 2
    folded.says("b", lambda n: "also bad" if n == 1 else 500)
    folded.fold(batch)
    assert folded.results(batch) == {"q1": ("also bad", "b"), "q2": ("bad", "a")}


def test_cancelling_keeps_what_is_decided_and_asks_nobody_further(folded: FoldDesk, world: World) -> None:
    batch = folded.batch("panel", 3)
    folded.says("a", lambda n: "x")
    folded.says("b", lambda n: None if n == 3 else "x")
    world.cancel(batch)
    assert world.find(batch).state == "cancelling"
    folded.fold(batch)
    assert world.find(batch).state == "finalizing"
    assert folded.results(batch) == {"q1": ("x", "a"), "q2": ("x", "a"), "q3": "batch_cancelled"}


def test_a_batch_that_expires_between_two_waves_says_so_of_the_lines_that_wait(folded: FoldDesk, world: World) -> None:
    batch = folded.batch("safe", 2)
    folded.says("a", lambda n: 500 if n == 1 else "a")
    folded.fold(batch)
    assert world.expire(batch)
    folded.fold(batch)
    assert folded.results(batch) == {"q1": "batch_expired", "q2": ("a", "a")}


@pytest.mark.parametrize("paused", [False, True])
def test_what_nobody_has_said_anything_of_is_cancelled_at_once(folded: FoldDesk, world: World, paused: bool) -> None:
    batch = folded.batch("safe", 2)
    if paused:
        world.pause(batch)
    world.cancel(batch)
    assert world.find(batch).state == "finalizing"
    assert set(folded.results(batch).values()) == {"batch_cancelled"}


def test_a_paused_batch_folds_once_it_goes_on_and_a_cancelled_one_all_the_same(folded: FoldDesk, world: World) -> None:
    batch = folded.batch("steps", 1)
    folded.says("a", lambda n: "bad")
    world.pause(batch)
    assert folded.due(batch) is None
    world.resume(batch)
    folded.fold(batch)
    world.pause(batch)
    assert folded.claim("b") is None
    world.cancel(batch)
    folded.fold(batch)
    assert folded.results(batch) == {"q1": ("bad", "a")}, "what there is"


def test_a_fold_whose_holder_fell_silent_is_done_by_another_and_the_first_is_refused(
    folded: FoldDesk, world: World
) -> None:
    batch = folded.batch("safe", 4)
    folded.says("a", lambda n: 500 if n == 1 else "a")
    silent = folded.due(batch)
    assert silent is not None
    assert folded.due(batch) is None, "it is held"
    assert world.reap(batch) == 1
    assert world.slices(batch)[0].crashes == 1
    assert folded.fold(batch) == 1
    assert world.slices(batch)[0].crashes == 0, "a wave further, it may be tried as often again"
    with pytest.raises(LeaseLost):
        Folding(world.db, folded.desk.blobs, silent, world.settings).run()
    assert folded.says("b", str) == [1], "asked once"
    folded.fold(batch)
    assert folded.results(batch) == {"q1": ("1", "b")} | {f"q{n}": ("a", "a") for n in (2, 3, 4)}


def test_a_wave_that_is_cut_twice_is_cut_once(folded: FoldDesk, world: World) -> None:
    batch = folded.batch("safe", 2)
    folded.says("a", lambda n: 500)
    one = folded.due(batch)
    assert one is not None
    for _ in range(2):  # its commit was not heard the first time
        world.db.run(folds.ask, one, {1: [1, 2]}, {}, world.settings)
    with pytest.raises(LeaseLost):
        world.db.run(folds.ask, replace(one, claim=replace(one.claim, lease=one.claim.lease + 1_000)), {2: [1]}, {},
                     world.settings)  # fmt: skip
    assert [(row.place, row.state, row.picked) for row in world.slices(batch)][2:] == [
        (1, "ready", [1, 2]), (2, "waiting", None),
    ]  # fmt: skip


def test_a_member_that_nobody_serves_for_long_is_passed_over(folded: FoldDesk, world: World) -> None:
    batch = folded.batch("safe", 3)
    folded.says("a", lambda n: "a" if n == 1 else None)
    assert world.db.run(folds.absent, world.settings) == []
    world.sql("update workers set seen_at = seen_at - interval '400 s' where model = 'a'")
    world.sql("update batches set in_progress_at = in_progress_at - interval '290 s'")
    assert world.db.run(folds.absent, world.settings) == [], "300 s are not over"
    world.sql("update batches set in_progress_at = in_progress_at - interval '20 s'")
    [absent] = world.db.run(folds.absent, world.settings)
    assert (absent.batch, absent.model) == (batch, "a")
    assert world.db.run(folds.pass_over, absent) == 1
    assert folded.fold(batch) == 2
    assert folded.says("b", lambda n: "b") == [2, 3]
    folded.fold(batch)
    assert folded.results(batch) == {"q1": ("a", "a"), "q2": ("b", "b"), "q3": ("b", "b")}


def test_hints_of_due_folds_are_repeated(folded: FoldDesk, world: World) -> None:
    batch = folded.batch("panel")
    for member in "abc":
        folded.says(member, str)
    assert world.db.run(folds.waiting) == batch

    def hinted(tx: Transaction) -> list[str]:
        dispatch.hint_again(tx, world.settings)
        return [hint.task for hint in tx.hints]

    assert world.db.run(hinted) == ["penstock.fold"]
    assert world.db.run(hinted) == [], "it was, a moment ago"


BEST: dict[str, Any] = {
    "name": "best",
    "kind": "best_of",
    "members": [{"model": "a"}, {"model": "b", "weight": 2}],
    "judge": {"model": "c", "prompt": "Of {count} answers to\n{request}\n{answers}\nwhich?", "reads_chars": 100},
}


def test_a_judge_reads_what_members_said_and_its_choice_wins(folded: FoldDesk, world: World) -> None:
    world.db.run(ensembles.add, BEST)
    batch = folded.batch("best", 4)
    assert [(row.model, row.place, row.state) for row in world.slices(batch)][1:] == [
        ("a", 0, "ready"), ("b", 1, "ready"), ("c", 2, "waiting"),
    ]  # fmt: skip
    folded.says("a", lambda n: 500 if n == 4 else f"a{n} {{count}}")
    folded.says("b", lambda n: f"b{n}" + "x" * 200)
    assert folded.fold(batch) == 3, "of one answer alone there is nothing to judge"
    claim = folded.claim("c")
    assert claim is not None
    assert claim.chosen
    assert (claim.chosen.model, claim.chosen.params) == ("c", {"temperature": 0, "max_tokens": 1_024})
    [first, *_] = [line for _, line in plan.unframe(folded.desk.blobs.read(claim.plan_key or ""))]
    asked = json.loads(first)["body"]["messages"][0]["content"]
    assert asked == f"Of 2 answers to\nuser: 1\nAnswer 1:\na1 {{count}}\n\nAnswer 2:\nb1{'x' * 44} […]\nwhich?"
    assert json.loads(first)["body"]["model"] == "best"
    world.reap(batch)
    folded.says("c", {1: "1", 2: "I say 2.", 3: "neither of them"}.get)
    folded.fold(batch)
    assert world.find(batch).usage.input_tokens == (3 + 4 + 3) * 3, "the judge's tokens, too"
    won = {key: (text[:2], label) for key, (text, label) in folded.results(batch).items()}
    assert won == {"q1": ("a1", "a"), "q2": ("b2", "b"), "q3": ("b3", "b"), "q4": ("b4", "b")}


def test_a_judge_that_writes_the_answer_is_asked_as_the_request_would_be(folded: FoldDesk, world: World) -> None:
    world.db.run(ensembles.add, BEST | {"name": "mix", "kind": "combine"})
    batch = folded.batch("mix", 2, max_tokens=7, stop=["."])
    folded.says("a", lambda n: "one")
    folded.says("b", lambda n: "two")
    assert folded.fold(batch) == 2
    claim = folded.claim("c")
    assert claim is not None
    [first, *_] = [line for _, line in plan.unframe(folded.desk.blobs.read(claim.plan_key or ""))]
    body = json.loads(first)["body"]
    assert (body["max_tokens"], body["stop"], len(body["messages"])) == (7, ["."], 1)
    world.reap(batch)
    folded.says("c", lambda n: "three" if n == 1 else 500)
    folded.fold(batch)
    assert folded.results(batch) == {"q1": ("three", "judge"), "q2": ("two", "b")}, "else the heaviest's"


TIED: dict[str, Any] = BEST | {"name": "tied", "kind": "vote", "tie": "judge", "members": [{"model": m} for m in "ab"]}


def test_a_judge_is_asked_the_lines_of_which_the_vote_is_tied(folded: FoldDesk, world: World) -> None:
    made = world.db.run(ensembles.add, TIED)
    batch = folded.batch("tied", 4)
    folded.says("a", lambda n: "yes" if n < 4 else 500)
    folded.says("b", lambda n: "yes" if n == 1 else "no")
    assert folded.fold(batch) == 2, "of the second and the third"
    assert folded.says("c", lambda n: "2" if n == 2 else "neither") == [2, 3]
    folded.fold(batch)
    assert folded.results(batch) == {
        "q1": ("yes", "a"), "q2": ("no", "b"), "q3": ("yes", "a"), "q4": ("no", "b"),
    }  # fmt: skip
    assert world.db.run(lambda tx: rows.agreement(tx.conn, made)) == (1 + 0.5 + 0.5 + 1) / 4, "of both waves"


def test_once_a_line_has_cost_too_much_no_later_member_is_asked_it(folded: FoldDesk, world: World) -> None:
    free = {"input": "0", "cached_input": "0", "gpu_second": "0", "currency": "EUR"}
    world.db.run(prices.set_price, "a", output="100", **free)
    written = CASCADE | {"members": [{"model": m} for m in "abc"], "max_cost": 0.0002}
    world.db.run(ensembles.add, written)
    batch = folded.batch("steps", 2)
    folded.says("a", lambda n: 500 if n == 2 else "bad")  # two tokens at 100 a million, or none
    assert folded.fold(batch) == 1
    assert folded.says("b", lambda n: "good") == [2]
    folded.fold(batch)
    assert folded.results(batch) == {"q1": ("bad", "a"), "q2": ("good", "b")}
    world.db.run(ensembles.add, TIED | {"max_cost": 0.0003})
    batch = folded.batch("tied", 1)
    folded.says("a", lambda n: "yes")
    folded.says("b", lambda n: "no")
    assert folded.fold(batch) == 1, "b costs nothing, and a less"


def test_what_a_judge_is_asked_goes_with_its_batch(folded: FoldDesk, world: World) -> None:
    world.db.run(ensembles.add, BEST)
    batch = folded.batch("best", 2)
    folded.says("a", str)
    folded.says("b", str)
    folded.fold(batch)
    [key] = [row.plan_key for row in world.slices(batch) if row.plan_key]
    world.cancel(batch)
    folded.fold(batch)
    assert set(folded.results(batch).values()) == {("1", "b"), ("2", "b")}, "what there is"
    world.db.run(lambda tx: sweep.delete_leftovers(tx.conn, [batch]))
    assert world.one("select count(*) from intents where blob_key = :key and doomed_at is not null", key=key) == 1


def test_a_line_is_open_as_often_as_members_are_asked_at_once(folded: FoldDesk, world: World) -> None:
    world.db.run(limits.change, "acme", {"queued_lines": 8})
    batch = folded.batch("panel", 3)
    [error] = world.find(batch).errors
    assert (world.find(batch).state, error["code"]) == ("failed", "rate_limit_exceeded")
    assert world.find(folded.batch("safe", 3)).state == "in_progress", "later members are asked once there is room"


def test_a_line_that_two_engines_died_of_is_not_tried_on_the_next_members(folded: FoldDesk, world: World) -> None:
    batch = folded.batch("safe", 2)
    claim = folded.claim("a")
    assert claim is not None
    records = [output.ended(batch, 1, "q1", CRASHED), output.answered(batch, 2, "q2", 400, "r", refusal(400))]
    key = blob_key("acme", "segments")
    world.db.run(work.intend, key)
    folded.desk.blobs.put(key, work.SliceAnswers(claim, 1, records).framed)
    world.db.run(as_holder.flush, claim, 1, records, key)
    world.db.run(as_holder.settle, claim)
    assert folded.fold(batch) == 1
    assert folded.says("b", str) == [2]
    folded.fold(batch)
    assert folded.results(batch) == {"q1": "ensemble_quorum", "q2": ("2", "b")}


def test_a_fold_in_hand_is_no_models_work(folded: FoldDesk, world: World) -> None:
    """Of a batch that asks an ensemble and a model, whose workers are all away."""
    folded.workers = {member: world.worker(member) for member in "abc"}
    asked = ["safe", "b"]
    batch = folded.desk.validate(
        b"\n".join(lines.write(f"q{n}", CHAT, {"model": model, "messages": []}) for n, model in enumerate(asked, 1))
    )
    folded.says("a", lambda n: "a")
    assert folded.due(batch) is not None
    world.sql("update workers set seen_at = seen_at - interval '400 s'")
    expected = world.db.run(batch_view.view, "acme", "batch", batch, world.settings).expected
    assert expected is not None
    assert expected.reason == "no_worker"
    assert {model for model, *_ in world.db.run(health.gauges, world.settings).backlog} == {"b"}
    assert world.db.run(lambda tx: kept.used(tx.conn, "acme", LimitName.QUEUED_LINES)) == 1
