"""Ties that a judge decides, and `max_cost`, which asks nobody further: what they change of a verdict, and what not."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.ensembles.definition import read
from penstock.domain.ensembles.ensemble import EnsembleDefinition, EnsembleMember
from penstock.domain.ensembles.verdict import EnsembleVerdict, Heard, judge, readable
from penstock.service.ensembles.fold import QUORUM, Fold, MemberAnswer

FAILED = Heard(answered=False)
Said = dict[int, Heard]
_VOTES = st.sampled_from([FAILED, Heard(True), Heard(True, "a"), Heard(True, "b"), Heard(True, "c")])
_JUDGES = st.sampled_from([FAILED, Heard(True), *(Heard(True, choice=number) for number in (0, 1, 2, 3, 9_999))])


def panel(weights: list[int], **more: Any) -> EnsembleDefinition:
    members = [{"model": "small", "weight": weight} for weight in weights]
    judged = {"tie": "judge", "judge": {"model": "big"}}
    return read({"name": "panel", "kind": "vote", "members": members, **judged, **more})


def steps(members: int, **more: Any) -> EnsembleDefinition:
    listed = [{"model": f"m{n}"} for n in range(members)]
    return read({"name": "steps", "kind": "cascade", "members": listed, "accept": {"regex": "x"}, **more})


@st.composite
def panels(draw: st.DrawFn, fails: bool | None = None) -> EnsembleDefinition:
    weights = draw(st.lists(st.integers(1, 2), min_size=2, max_size=5))
    how = draw(st.booleans()) if fails is None else fails
    least = draw(st.integers(1, len(weights)))
    return panel(weights, min_responses=least, on_error="fail" if how else "skip")


def by_heaviest(definition: EnsembleDefinition) -> EnsembleDefinition:
    """The same, without its judge."""
    members = [{"model": "small", "weight": int(one.weight)} for one in definition.members]
    how = "fail" if definition.fails_with_member else "skip"
    return read({"name": "panel", "kind": "vote", "members": members, "min_responses": definition.min_responses,
                 "on_error": how})  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_judge_is_asked_once_where_votes_are_tied_and_the_order_of_arrival_does_not_matter(
    data: st.DataObject,
) -> None:
    definition = data.draw(panels())
    places = range(len(definition.members))
    said = {place: data.draw(_VOTES) for place in places}
    known: Said = {}
    found = EnsembleVerdict()
    for place in data.draw(st.permutations(places)):
        found = judge(definition, known)
        assert not found.asks, "nobody judges before all have voted"
        if found.decided:
            assert not found.tied
            break
        known[place] = said[place]
    without = judge(by_heaviest(definition), said)
    full = judge(definition, said)
    if not full.asks:
        assert full == without
        if found.decided and full.winner is not None:
            assert found.winner is not None
            assert said[found.winner].vote == said[full.winner].vote
        return
    assert (full.decided, full.asks, without.tied) == (False, (len(places),), True)
    named = data.draw(_JUDGES)
    known = said | {len(places): named}
    found = judge(definition, known)
    assert found == judge(definition, dict(data.draw(st.permutations(list(known.items())))))
    read_by_it = readable(definition, said)
    assert len({said[place].vote for place in read_by_it}) == len(read_by_it) >= 2
    if named.choice is not None and 1 <= named.choice <= len(read_by_it):
        assert found == dataclasses.replace(without, winner=read_by_it[named.choice - 1])
    elif definition.fails_with_member:
        assert found == EnsembleVerdict(decided=True)
    else:
        assert found == dataclasses.replace(without, degraded=True), "as the heaviest's rule says"


@settings(max_examples=80, deadline=None)
@given(st.data(), st.fractions(min_value=Fraction(1, 1000), max_value=1000))
def test_neither_a_failed_member_nor_a_scale_of_weights_changes_a_vote_or_what_its_judge_reads(
    data: st.DataObject, factor: Fraction
) -> None:
    definition = data.draw(panels(fails=False))
    count = len(definition.members)
    said = {place: data.draw(_VOTES) for place in range(count)}
    if data.draw(st.booleans(), label="the judge was heard"):
        said[count] = data.draw(_JUDGES)
    full = judge(definition, said)
    scaled = tuple(dataclasses.replace(one, weight=one.weight * factor) for one in definition.members)
    assert judge(dataclasses.replace(definition, members=scaled), said) == full
    place = data.draw(st.integers(0, count), label="where one more is, which failed")
    members = list(definition.members)
    members.insert(place, EnsembleMember("other", weight=data.draw(st.integers(1, 9)), label="other"))
    longer = dataclasses.replace(definition, members=tuple(members))
    others = {one + (one >= place): what for one, what in said.items()} | {place: FAILED}
    moved = judge(longer, others)
    winner = None if full.winner is None else full.winner + (full.winner >= place)
    assert moved == dataclasses.replace(full, winner=winner, asks=tuple(count + 1 for _ in full.asks))
    assert readable(longer, others) == [one + (one >= place) for one in readable(definition, said)]


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(1, 9))
def test_max_cost_asks_nobody_further_and_changes_nothing_that_is_decided(data: st.DataObject, most: int) -> None:
    free = data.draw(panels())
    capped = dataclasses.replace(free, max_cost=most)
    said = {place: data.draw(_VOTES) for place in range(len(free.members)) if data.draw(st.booleans())}
    found = judge(free, said)
    assert judge(capped, said, most - 1) == judge(free, said, most) == found
    stopped = judge(capped, said, most)
    assert stopped == judge(capped, said, most + 5)
    assert not stopped.asks
    if found.asks:
        without = judge(by_heaviest(free), said)
        assert stopped == dataclasses.replace(without, degraded=True, stopped=True), "also where a failure fails it"
    else:
        assert stopped == found, "those that are asked already are waited for"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([FAILED, Heard(True, accepted=False), Heard(True)]), st.integers(0, 3)),
                min_size=2, max_size=6), st.integers(1, 9))  # fmt: skip
def test_a_cascade_goes_on_until_it_has_cost_too_much(each: list[tuple[Heard, int]], most: int) -> None:
    definition = steps(len(each))
    capped = dataclasses.replace(definition, max_cost=most)
    known: Said = {}
    cost = 0
    while True:
        found, free = judge(capped, known, cost), judge(definition, known)
        if found.decided:
            break
        assert found == free, "so far it is as without"
        assert cost < most
        [place] = found.asks
        known[place], more = each[place]
        cost += more if known[place].answered else 0
    if not found.stopped:
        assert found == free
        return
    assert (free.decided, cost >= most) == (False, True)
    answered = [place for place, one in known.items() if one.answered]
    assert (found.winner, found.degraded) == (answered[-1], True), "the last answer that there is"


def test_the_first_member_is_always_asked() -> None:
    assert judge(steps(2, max_cost=1e-12), {}, 5).asks == (0,)
    assert judge(steps(2, max_cost=1e-12), {0: FAILED}, 0).asks == (1,), "what gave no answer has cost nothing"


def answered(text: str, cost: int = 0) -> MemberAnswer:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    body = {"choices": [{"index": 0, "message": {"content": text}}], "usage": usage}
    return MemberAnswer("answered", json.dumps(body).encode(), tokens=2, ms=3, cost=cost)


def told(body: bytes | None) -> dict[str, Any]:
    assert body is not None
    found: dict[str, Any] = json.loads(body)
    return found


def test_the_answer_says_what_the_judge_chose_of_the_tied_ones() -> None:
    fold = Fold(panel([1, 1, 2, 1], extract={"regex": "[ab]$"}), 1)
    said = dict(enumerate([answered("so a"), answered("also a"), answered("then b"), answered("what?")]))
    assert fold.fold(said).verdict.asks == (4,)
    question = json.loads(fold.question("/v1/chat/completions", b'{"messages":[],"max_tokens":3}', said))
    assert question["messages"][0]["content"].endswith("Answer 1:\nso a\n\nAnswer 2:\nthen b"), "one of each label"
    assert "max_tokens" not in question
    made = told(fold.fold(said | {4: answered("1")}).body)
    assert (made["choices"][0]["message"]["content"], made["usage"]["total_tokens"]) == ("so a", 10)
    trace = made["penstock"]
    assert (trace["winner"], trace["agreement"], trace.get("degraded")) == ("small", 0.5, None)
    assert trace["judge"] == {"model": "judge", "outcome": "answered", "tokens": 2, "ms": 3, "choice": 1}
    trace = told(fold.fold(said | {4: answered("none")}).body)["penstock"]
    assert (trace["winner"], trace["degraded"]) == ("small#3", True)
    fails = Fold(panel([1, 1], on_error="fail"), 1)
    tied = {0: answered("a"), 1: answered("b")}
    assert fails.fold(tied | {2: answered("7")}).error == (QUORUM, "The judge of the ensemble 'panel' gave no verdict.")
    gone = MemberAnswer("unavailable", code="no_worker")
    assert fails.fold(tied | {2: gone}).error == (
        QUORUM, "A member of the ensemble 'panel' did not answer (judge: no_worker).",
    )  # fmt: skip


def test_the_answer_says_that_max_cost_stopped_it() -> None:
    fold = Fold(panel([1, 1, 2], max_cost=0.5), 1)
    said = dict(enumerate([answered("a", 10**11), answered("a", 10**11), answered("b", 3 * 10**11)]))
    trace = told(fold.fold(said).body)["penstock"]
    assert (trace["winner"], trace["stopped"], trace["degraded"]) == ("small#3", "max_cost", True)
    assert "judge" not in trace
    assert fold.fold(said | {0: answered("a")}).verdict.asks == (3,)
    cascade = Fold(steps(3, max_cost=0.5), 1)
    trace = told(cascade.fold({0: answered("no", cost=10**12)}).body)["penstock"]
    assert (trace["winner"], trace["stopped"], trace["degraded"]) == ("m0", "max_cost", True)
    good = told(cascade.fold({0: answered("x", cost=10**12)}).body)["penstock"]
    assert "stopped" not in good, "nobody would have been asked"
    lost = MemberAnswer("failed", code="request_timeout", cost=10**12)
    assert cascade.fold({0: lost}).error == (
        QUORUM,
        "Too few members of the ensemble 'steps' answered before max_cost stopped it (m0: request_timeout).",
    )
