"""Verdicts: what votes and turns decide, whatever order members answer in."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.ensembles import verdict
from penstock.domain.ensembles.definition import read
from penstock.domain.ensembles.ensemble import EnsembleDefinition, EnsembleMember
from penstock.domain.ensembles.verdict import EnsembleVerdict, Heard, judge

FAILED = Heard(answered=False)
Said = dict[int, Heard]

_VOTES = st.sampled_from([FAILED, Heard(True), Heard(True, "a"), Heard(True, "a"), Heard(True, "b"), Heard(True, "c")])
_TURNS = st.sampled_from([FAILED, Heard(True, accepted=False), Heard(True)])


def panel(weights: list[int], **more: Any) -> EnsembleDefinition:
    members = [{"model": "small", "weight": weight} for weight in weights]
    return read({"name": "panel", "kind": "vote", "members": members, **more})


@st.composite
def panels(draw: st.DrawFn, fails: bool | None = None) -> EnsembleDefinition:
    weights = draw(st.lists(st.integers(1, 4), min_size=2, max_size=6))
    how = st.sampled_from(["skip", "fail"]) if fails is None else st.just("fail" if fails else "skip")
    return panel(
        weights,
        min_responses=draw(st.integers(1, len(weights))),
        tie=draw(st.sampled_from(["heaviest", "first"])),
        on_error=draw(how),
    )


@st.composite
def heard(draw: st.DrawFn, definition: EnsembleDefinition) -> Said:
    """All of a vote's members."""
    return {place: draw(_VOTES) for place in range(len(definition.members))}


def label(found: EnsembleVerdict, said: Said) -> str | None:
    """What was decided: a label, or a failure."""
    assert found.decided
    return None if found.winner is None else said[found.winner].vote


def in_order(definition: EnsembleDefinition, said: Said, order: list[int]) -> EnsembleVerdict:
    """The first verdict, where members are heard in this order."""
    known: Said = {}
    for place in order:
        known[place] = said[place]
        found = judge(definition, known)
        if found.decided:
            return found
        assert not found.asks, "all were asked at once"
    raise AssertionError("all were heard, and nothing is decided")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_order_of_arrival_does_not_matter_and_an_early_verdict_is_what_the_full_one_says(
    data: st.DataObject,
) -> None:
    definition = data.draw(panels())
    said = data.draw(heard(definition))
    full = judge(definition, said)
    order = data.draw(st.permutations(list(said)))
    assert judge(definition, {place: said[place] for place in order}) == full
    assert label(in_order(definition, said, order), said) == label(full, said)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_failed_member_never_changes_a_decided_vote(data: st.DataObject) -> None:
    definition = data.draw(panels(fails=False))
    said = data.draw(heard(definition))
    known = {place: one for place, one in said.items() if data.draw(st.booleans(), label=f"{place} was heard")}
    before = judge(definition, known)
    if before.decided:
        assert label(judge(definition, {place: known.get(place, FAILED) for place in said}), known) == label(
            before, known
        )
    full = judge(definition, said)
    place = data.draw(st.integers(0, len(said)), label="where one more is, which failed")
    members = list(definition.members)
    members.insert(place, EnsembleMember("other", weight=Fraction(data.draw(st.integers(1, 9))), label="other"))
    longer = dataclasses.replace(definition, members=tuple(members))
    others = {one + (one >= place): what for one, what in said.items()} | {place: FAILED}
    found = judge(longer, others)
    assert (label(found, others), found.agreement) == (label(full, said), full.agreement)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.fractions(min_value=Fraction(1, 1000), max_value=1000))
def test_weights_scale(data: st.DataObject, factor: Fraction) -> None:
    definition = data.draw(panels())
    said = data.draw(heard(definition))
    members = tuple(dataclasses.replace(one, weight=one.weight * factor) for one in definition.members)
    known = {place: one for place, one in said.items() if data.draw(st.booleans(), label=f"{place} was heard")}
    assert judge(dataclasses.replace(definition, members=members), known) == judge(definition, known)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_heaviest_label_wins_and_a_tie_is_decided_as_written(data: st.DataObject) -> None:
    definition = data.draw(panels(fails=False))
    said = data.draw(heard(definition))
    full = judge(definition, said)
    votes = [(place, one.vote) for place, one in said.items() if one.vote is not None]
    if len(votes) < definition.min_responses:
        assert full == EnsembleVerdict(decided=True)
        return
    weight = [member.weight for member in definition.members]
    by = {name: sum(weight[place] for place, vote in votes if vote == name) for _, name in votes}
    tied = [(place, vote) for place, vote in votes if by[vote] == max(by.values())]
    if definition.tie == "heaviest":  # the heaviest member; the first of several
        tied = [one for one in tied if weight[one[0]] == max(weight[place] for place, _ in tied)]
    wins = tied[0][1]
    winner = next(place for place, vote in votes if vote == wins)
    tie = len({vote for _, vote in votes if by[vote] == by[wins]}) > 1
    agreement = float(by[wins] / sum(by.values()))
    assert full == EnsembleVerdict(decided=True, winner=winner, agreement=agreement, tied=tie)


def test_ties_by_hand() -> None:
    said = {0: Heard(True, "a"), 1: Heard(True, "a"), 2: Heard(True, "b")}
    weights = [1, 1, 2]
    assert label(judge(panel(weights), said), said) == "b", "the heaviest"
    assert label(judge(panel(weights, tie="first"), said), said) == "a"
    assert label(judge(panel([2, 2, 2]), {0: said[2], 1: said[0], 2: FAILED}), {0: said[2]}) == "b", "the first of two"
    decimals = read({"name": "p", "kind": "vote", "tie": "first", "members": [
        {"model": "x", "weight": 0.1}, {"model": "y", "weight": 0.2}, {"model": "z", "weight": 0.3}]})  # fmt: skip
    assert judge(decimals, {0: Heard(True, "a"), 1: Heard(True, "a"), 2: Heard(True, "b")}).winner == 0, (
        "0.1 + 0.2 = 0.3"
    )


def test_a_vote_is_decided_once_what_is_open_can_not_change_it() -> None:
    five = panel([1] * 5, min_responses=3)
    two = {0: Heard(True, "a"), 1: Heard(True, "a")}
    assert judge(five, two) == verdict.WAITS
    assert judge(five, two | {4: Heard(True, "a")}).winner == 0
    assert judge(five, two | {4: Heard(True, "b")}) == verdict.WAITS
    assert judge(panel([1, 1]), {1: Heard(True, "a")}) == verdict.WAITS, "the first may make it a tie, and win that"
    undecidable = judge(five, {0: FAILED, 1: FAILED, 2: Heard(True)})
    assert undecidable == EnsembleVerdict(decided=True), "three can't answer any more"
    fails = panel([1] * 3, on_error="fail")
    assert judge(fails, two) == verdict.WAITS, "the third may fail yet"
    assert judge(fails, {0: FAILED}) == EnsembleVerdict(decided=True)


def turns(kind: str, members: int, fails: bool = False) -> EnsembleDefinition:
    more: dict[str, Any] = (
        {"accept": {"regex": "x"}, "on_error": "fail" if fails else "skip"} if kind == "cascade" else {}
    )
    return read({"name": "turns", "kind": kind, "members": [{"model": f"m{one}"} for one in range(members)], **more})


def asked_in_turn(definition: EnsembleDefinition, said: list[Heard]) -> tuple[list[int], EnsembleVerdict]:
    """Whom it asked, in which order, and the verdict."""
    asks, known, asked = definition.first, {}, []
    while True:
        [place] = asks
        asked.append(place)
        known[place] = said[place]
        found = judge(definition, known)
        if found.decided:
            return asked, found
        asks = found.asks


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["fallback", "cascade"]), st.lists(_TURNS, min_size=2, max_size=6))
def test_fallback_and_cascade_ask_in_order_until_one_is_good_enough(kind: str, said: list[Heard]) -> None:
    if kind == "fallback":
        said = [dataclasses.replace(one, accepted=True) for one in said]
    definition, last = turns(kind, len(said)), len(said) - 1
    good = [place for place, one in enumerate(said) if one.answered and (one.accepted or place == last)]
    answered = [place for place, one in enumerate(said) if one.answered]
    asked, found = asked_in_turn(definition, said)
    assert asked == list(range((good[0] if good else last) + 1))
    assert found.winner == (good[0] if good else answered[-1] if answered else None)
    assert found.degraded is (not good and bool(answered))
    assert judge(definition, dict(reversed(list(enumerate(said))))) == found, "of all at once it says the same"


def test_a_cascade_that_fails_with_a_member_goes_no_further() -> None:
    said = [Heard(True, accepted=False), FAILED, Heard(True)]
    assert asked_in_turn(turns("cascade", 3, fails=True), said) == ([0, 1], EnsembleVerdict(decided=True))
    assert asked_in_turn(turns("cascade", 3), said)[1].winner == 2


def test_a_vote_asks_all_at_once_and_the_others_one() -> None:
    assert panel([1, 1, 1]).first == (0, 1, 2)
    assert turns("fallback", 3).first == turns("cascade", 3).first == (0,)
