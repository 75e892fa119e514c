"""Routing: which members of an ensemble a request goes to, and the request as that member is asked it."""

from __future__ import annotations

from dataclasses import dataclass
from types import EllipsisType
from typing import Final

from penstock.domain.ensembles import route
from penstock.domain.ensembles.conditions import LabelUnknown
from penstock.domain.ensembles.ensemble import ChosenMember, Ensemble, EnsembleDefinition
from penstock.formats.routed_request import RequestFacts, with_defaults
from penstock.scoring.bounded_regex import BoundedRegex, PatternTooSlow
from penstock.scoring.language import language
from penstock.service.ensembles import askable

TOO_SLOW: Final = "ensemble_rule_too_slow"


class Unroutable(Exception):
    """No member can be said. `code` and the message are for whoever asks."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Routed:
    """Where a request goes, and its body: of a route with the member's params."""

    members: tuple[ChosenMember, ...]
    """The one that a route chose, or all that may be asked, in their order."""
    rule: int | None
    """Of a route: its place among the rules; None where a label must be known before."""
    body: bytes

    @property
    def gathers(self) -> bool:
        """Whether one answer may take several of them."""
        return self.members[0].gathers

    @property
    def chosen(self) -> ChosenMember:
        """The member that a route chose."""
        [one] = self.members
        return one


class Router:
    """The routing of one file, job or call.

    A pattern that is too slow too often is not tried any more (scoring/bounded_regex.py): that is for this file, job
    or call, so that one client's texts are no other's trouble.
    """

    def __init__(self, bytes_per_token: float) -> None:
        self._bytes_per_token = bytes_per_token
        self._patterns: dict[str, BoundedRegex] = {}
        self._chosen: dict[tuple[int, str | None], tuple[ChosenMember, ...]] = {}
        """By ensemble and member's model, or None for all: one of each."""

    def routed(self, ensemble: Ensemble, endpoint: str, body: bytes) -> Routed:
        """Which member a body goes to; raise Unroutable where a pattern takes too long to say it.

        Of an ensemble that gathers, and where a route's rules need a label: all that may be asked; raise Unroutable for
        what it can't answer.
        """
        definition = ensemble.definition
        rule = None if definition.kind.gathers else self._rule(definition, body, ...)
        if rule is None:
            if fault := askable.fault(definition, endpoint, body):
                raise Unroutable(*fault)
            return Routed(self._members(ensemble, None), None, body)
        members = self._members(ensemble, definition.rules[rule].use)
        return Routed(members, rule, with_defaults(body, endpoint, members[0].params))

    def labelled(self, definition: EnsembleDefinition, body: bytes, label: str | None) -> int:
        """The place of the rule that holds once the classifier has said a label, or none; raise Unroutable as above."""
        rule = self._rule(definition, body, label)
        assert rule is not None, "its label is known"
        return rule

    def _rule(self, definition: EnsembleDefinition, body: bytes, label: str | EllipsisType | None) -> int | None:
        """The place of the first rule that holds; None if a label must be known before."""
        try:
            facts = RequestFacts(body, self._bytes_per_token, self._search, language, label)
            return route.first(definition.rules, facts)
        except LabelUnknown:
            return None
        except PatternTooSlow:
            message = f"A pattern of the ensemble {definition.name!r} takes too long on this request."
            raise Unroutable(TOO_SLOW, message) from None

    def _members(self, ensemble: Ensemble, model: str | None) -> tuple[ChosenMember, ...]:
        found = self._chosen.get((ensemble.id, model))
        if found is None:
            definition = ensemble.definition
            asked = definition.asked if model is None else (definition.member(model),)
            found = tuple(ensemble.chosen(one, gathered=model is None) for one in asked)
            self._chosen[ensemble.id, model] = found
        return found

    def _search(self, pattern: str, text: str) -> bool:
        found = self._patterns.get(pattern)
        if found is None:
            found = self._patterns[pattern] = BoundedRegex(pattern)
        return found.find(text) is not None
