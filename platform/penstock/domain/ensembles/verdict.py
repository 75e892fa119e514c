"""Verdicts: what an ensemble's answer is, by what its members said; or whom to ask next. One function for all.

Pure, and whatever order members answer in: they are read in their own order. A batch folds by it what a wave of members
said, a waiting call each time that another has answered. What their answers have cost goes in as a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from penstock.domain.ensembles.ensemble import EnsembleDefinition, EnsembleKind, EnsembleMember, Tie


@dataclass(frozen=True, slots=True)
class Heard:
    """What one member said."""

    answered: bool
    """It gave an answer; else it failed, or could not be asked."""
    vote: str | None = None
    """Of a vote: its label. None: no vote is in its answer, which counts as none."""
    accepted: bool = True
    """Of a cascade: its answer is good enough. Of a combine's judge: it wrote one at all."""
    choice: int | None = None
    """Of a judge that names one: the number of the answer that it finds best, from 1; None: it names none."""
    label: str | None = None
    """Of a classifier: what it says of the request. None: nothing that it may say."""
    leads: int | None = None
    """Of a classifier: the place of the member that the rules choose by that."""


@dataclass(frozen=True, slots=True)
class EnsembleVerdict:
    """What is decided, whatever members that are still asked will say; or nothing yet."""

    decided: bool = False
    winner: int | None = None
    """The place of the member whose answer it is, of numbers that are made one of the first; None if there is none: the
    request has failed."""
    agreement: float | None = None
    """Of a vote: what part of the weight of all votes is for the winner's label."""
    tied: bool = False
    """Of a vote: another label had as much."""
    degraded: bool = False
    """Of a cascade: no answer was good enough, and the last one is given all the same, since later members failed.
    Where a judge reads: it gave no verdict, and the heaviest member's answer is given. Of a route: its classifier gave
    no label, and the rules chose without one."""
    stopped: bool = False
    """Somebody would have been asked further, if that had not cost too much already."""
    asks: tuple[int, ...] = ()
    """Who must be asked now, beside those that were."""


WAITS = EnsembleVerdict()
"""Those that are asked have not said enough yet."""


def judge(definition: EnsembleDefinition, heard: Mapping[int, Heard], cost: int = 0) -> EnsembleVerdict:
    """The verdict on what was heard of members, by their places; of those that are asked and not in it nothing was.

    `cost`: of all answers that there are, in picounits; from `max_cost` on nobody further is asked.
    """
    stops = definition.max_cost is not None and cost >= definition.max_cost
    if definition.fails_with_member and any(not one.answered for one in heard.values()):
        return EnsembleVerdict(decided=True)
    if definition.kind is EnsembleKind.VOTE:
        return _vote(definition, heard, stops)
    if definition.kind.judged:
        return _judged(definition, heard, stops)
    if definition.kind is EnsembleKind.ROUTE:
        return _routed(definition, heard)
    return _in_turn(definition, heard, stops)


def _routed(definition: EnsembleDefinition, heard: Mapping[int, Heard]) -> EnsembleVerdict:
    """The classifier is asked, and then the member that the rules choose by its label; without one the rules that need
    none choose."""
    classifier = len(definition.members)
    said = heard.get(classifier)
    if said is None:
        return EnsembleVerdict(asks=(classifier,))
    degraded = said.label is None
    if said.leads is None or (degraded and definition.fails_with_member):
        return EnsembleVerdict(decided=True)
    one = heard.get(said.leads)
    if one is None:
        return EnsembleVerdict(asks=(said.leads,), degraded=degraded)
    winner = said.leads if one.answered else None
    return EnsembleVerdict(decided=True, winner=winner, degraded=degraded and winner is not None)


def _in_turn(definition: EnsembleDefinition, heard: Mapping[int, Heard], stops: bool) -> EnsembleVerdict:
    """One after the other: the first answer that is good enough; the last member's always is."""
    last = len(definition.members) - 1
    spare = None
    for place in range(last + 1):
        one = heard.get(place)
        if one is None and stops and place:
            return EnsembleVerdict(decided=True, winner=spare, degraded=spare is not None, stopped=True)
        if one is None:
            return EnsembleVerdict(asks=(place,))
        if one.answered and (one.accepted or place == last):
            return EnsembleVerdict(decided=True, winner=place)
        if one.answered:
            spare = place
    return EnsembleVerdict(decided=True, winner=spare, degraded=spare is not None)


def _judged(definition: EnsembleDefinition, heard: Mapping[int, Heard], stops: bool) -> EnsembleVerdict:
    """What the judge says of the answers; of one answer alone it is not asked. Of numbers all are the answer."""
    places = range(len(definition.members))
    good = readable(definition, heard)
    still_open = sum(place not in heard for place in places)
    if len(good) + still_open < definition.min_responses:
        return EnsembleVerdict(decided=True)
    if still_open:
        return WAITS
    if len(good) <= 1 or definition.method:
        return EnsembleVerdict(decided=True, winner=good[0] if good else None)
    return _by_judge(definition, heard, good, _heaviest(definition, good), stops)


def _by_judge(
    definition: EnsembleDefinition, heard: Mapping[int, Heard], good: Sequence[int], spare: int, stops: bool
) -> EnsembleVerdict:
    """What the judge says of the answers at these places; without its verdict it is the spare one's."""
    judge = len(definition.members)
    said = heard.get(judge)
    if said is None:
        return EnsembleVerdict(True, spare, degraded=True, stopped=True) if stops else EnsembleVerdict(asks=(judge,))
    if said.answered and said.accepted and definition.kind is EnsembleKind.COMBINE:
        return EnsembleVerdict(decided=True, winner=judge)
    if said.choice is not None and 1 <= said.choice <= len(good):
        return EnsembleVerdict(decided=True, winner=good[said.choice - 1])
    if definition.fails_with_member:
        return EnsembleVerdict(decided=True)
    return EnsembleVerdict(decided=True, winner=spare, degraded=True)


def _heaviest(definition: EnsembleDefinition, places: Sequence[int]) -> int:
    """Of several the first."""
    return max(places, key=lambda place: (definition.members[place].weight, -place))


def readable(definition: EnsembleDefinition, heard: Mapping[int, Heard]) -> list[int]:
    """The places of the members whose answers a judge reads, in their order: the first is its number 1.

    Of a vote: the first answer with each of the labels that most, and equally much, weight is for.
    """
    if definition.kind is EnsembleKind.VOTE:
        votes = _votes(heard)
        tied = _most(_weights(definition, votes))
        return sorted(next(place for place, vote in votes if vote == label) for label in tied)
    return [place for place in range(len(definition.members)) if place in heard and heard[place].answered]


def _vote(definition: EnsembleDefinition, heard: Mapping[int, Heard], stops: bool) -> EnsembleVerdict:
    members, votes = definition.members, _votes(heard)
    still_open = [place for place in range(len(members)) if place not in heard]
    if len(votes) + len(still_open) < definition.min_responses:
        return EnsembleVerdict(decided=True)
    weights = _weights(definition, votes)
    if still_open and (definition.fails_with_member or not _is_certain(definition, votes, weights, still_open)):
        return WAITS
    if not votes:
        return EnsembleVerdict(decided=True)
    tied = _most(weights)
    label = _of_tied(tied, votes, members, definition.tie)
    found = EnsembleVerdict(decided=True, winner=next(place for place, vote in votes if vote == label))
    if definition.tie is Tie.JUDGE and len(tied) > 1:
        assert found.winner is not None
        found = _by_judge(definition, heard, readable(definition, heard), found.winner, stops)
        if found.winner is None:
            return found
    return replace(found, agreement=float(weights[label] / sum(weights.values())), tied=len(tied) > 1)


def _votes(heard: Mapping[int, Heard]) -> list[tuple[int, str]]:
    """Those that were heard, in their members' order."""
    return [(place, one.vote) for place, one in sorted(heard.items()) if one.answered and one.vote is not None]


def _weights(definition: EnsembleDefinition, votes: Sequence[tuple[int, str]]) -> dict[str, int | Fraction]:
    """What weighs for each label."""
    weights: dict[str, int | Fraction] = {}
    for place, label in votes:
        weights[label] = weights.get(label, 0) + definition.members[place].weight
    return weights


def _most(weights: Mapping[str, int | Fraction]) -> set[str]:
    """The labels that most weight is for."""
    most = max(weights.values(), default=0)
    return {label for label, weight in weights.items() if weight == most}


def _is_certain(
    definition: EnsembleDefinition,
    votes: Sequence[tuple[int, str]],
    weights: Mapping[str, int | Fraction],
    still_open: Sequence[int],
) -> bool:
    """Whether the same label wins whatever those say that have not answered."""
    if len(votes) < definition.min_responses:
        return False
    ranked = sorted(weights.values(), reverse=True)
    second = ranked[1] if len(ranked) > 1 else 0
    return ranked[0] > second + sum(definition.members[place].weight for place in still_open)


def _of_tied(tied: set[str], votes: Sequence[tuple[int, str]], members: Sequence[EnsembleMember], tie: Tie) -> str:
    """The label that wins of those that are equally heavy; votes are in their members' order."""
    of_tied = [(place, label) for place, label in votes if label in tied]
    if tie is Tie.FIRST:
        return of_tied[0][1]
    return max(of_tied, key=lambda one: (members[one[0]].weight, -one[0]))[1]
