"""Verdicts: what an ensemble's answer is, by what its members said; or whom to ask next. One function for all.

Pure, and whatever order members answer in: they are read in their own order. A batch folds by it what a wave of members
said, a waiting call each time that another has answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    """Of a best_of's judge: the number of the answer that it finds best, from 1; None: it names none."""
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
    degraded: bool = False
    """Of a cascade: no answer was good enough, and the last one is given all the same, since later members failed.
    Where a judge reads: it gave no verdict, and the heaviest member's answer is given. Of a route: its classifier gave
    no label, and the rules chose without one."""
    asks: tuple[int, ...] = ()
    """Who must be asked now, beside those that were."""


WAITS = EnsembleVerdict()
"""Those that are asked have not said enough yet."""


def judge(definition: EnsembleDefinition, heard: Mapping[int, Heard]) -> EnsembleVerdict:
    """The verdict on what was heard of members, by their places; of those that are asked and not in it nothing was."""
    if definition.fails_with_member and any(not one.answered for one in heard.values()):
        return EnsembleVerdict(decided=True)
    if definition.kind is EnsembleKind.VOTE:
        return _vote(definition, heard)
    if definition.kind.judged:
        return _judged(definition, heard)
    if definition.kind is EnsembleKind.ROUTE:
        return _routed(definition, heard)
    return _in_turn(definition, heard)


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


def _in_turn(definition: EnsembleDefinition, heard: Mapping[int, Heard]) -> EnsembleVerdict:
    """One after the other: the first answer that is good enough; the last member's always is."""
    last = len(definition.members) - 1
    spare = None
    for place in range(last + 1):
        one = heard.get(place)
        if one is None:
            return EnsembleVerdict(asks=(place,))
        if one.answered and (one.accepted or place == last):
            return EnsembleVerdict(decided=True, winner=place)
        if one.answered:
            spare = place
    return EnsembleVerdict(decided=True, winner=spare, degraded=spare is not None)


def _judged(definition: EnsembleDefinition, heard: Mapping[int, Heard]) -> EnsembleVerdict:
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
    judge = len(places)
    said = heard.get(judge)
    if said is None:
        return EnsembleVerdict(asks=(judge,))
    if said.answered and said.accepted and definition.kind is EnsembleKind.COMBINE:
        return EnsembleVerdict(decided=True, winner=judge)
    if said.choice is not None and 1 <= said.choice <= len(good):
        return EnsembleVerdict(decided=True, winner=good[said.choice - 1])
    if definition.fails_with_member:
        return EnsembleVerdict(decided=True)
    heaviest = max(good, key=lambda place: (definition.members[place].weight, -place))
    return EnsembleVerdict(decided=True, winner=heaviest, degraded=True)


def readable(definition: EnsembleDefinition, heard: Mapping[int, Heard]) -> list[int]:
    """The places of the members whose answers a judge reads, in their order: the first is its number 1."""
    return [place for place in range(len(definition.members)) if place in heard and heard[place].answered]


def _vote(definition: EnsembleDefinition, heard: Mapping[int, Heard]) -> EnsembleVerdict:
    members = definition.members
    votes = [(place, one.vote) for place, one in sorted(heard.items()) if one.answered and one.vote is not None]
    still_open = [place for place in range(len(members)) if place not in heard]
    if len(votes) + len(still_open) < definition.min_responses:
        return EnsembleVerdict(decided=True)
    weights: dict[str, int | Fraction] = {}
    for place, label in votes:
        weights[label] = weights.get(label, 0) + members[place].weight
    if still_open and (definition.fails_with_member or not _is_certain(definition, votes, weights, still_open)):
        return WAITS
    if not votes:
        return EnsembleVerdict(decided=True)
    most = max(weights.values())
    label = _of_tied({one for one, weight in weights.items() if weight == most}, votes, members, definition.tie)
    winner = next(place for place, vote in votes if vote == label)
    return EnsembleVerdict(decided=True, winner=winner, agreement=float(most / sum(weights.values())))


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
