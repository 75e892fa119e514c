"""Routing: which members of an ensemble a request goes to, and the request as that member is asked it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock.domain.ensembles import route
from penstock.domain.ensembles.ensemble import ChosenMember, Ensemble
from penstock.formats.routed_request import RequestFacts, with_defaults
from penstock.scoring.bounded_regex import BoundedRegex, PatternTooSlow
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
    """The one that a route chose, or all that an ensemble may ask that gathers, in their order."""
    rule: int | None
    """Of a route: its place among the rules."""
    body: bytes

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

        Of an ensemble that gathers: all members; raise Unroutable for what its kind can't answer.
        """
        if ensemble.gathers:
            if fault := askable.fault(ensemble.definition, endpoint, body):
                raise Unroutable(*fault)
            return Routed(self._members(ensemble, None), None, body)
        rules = ensemble.definition.rules
        try:
            rule = route.first(rules, RequestFacts(body, self._bytes_per_token, self._search))
        except PatternTooSlow:
            message = f"A pattern of the ensemble {ensemble.name!r} takes too long on this request."
            raise Unroutable(TOO_SLOW, message) from None
        members = self._members(ensemble, rules[rule].use)
        return Routed(members, rule, with_defaults(body, endpoint, members[0].params))

    def _members(self, ensemble: Ensemble, model: str | None) -> tuple[ChosenMember, ...]:
        found = self._chosen.get((ensemble.id, model))
        if found is None:
            definition = ensemble.definition
            asked = definition.asked if model is None else (definition.member(model),)
            found = self._chosen[ensemble.id, model] = tuple(ensemble.chosen(one) for one in asked)
        return found

    def _search(self, pattern: str, text: str) -> bool:
        found = self._patterns.get(pattern)
        if found is None:
            found = self._patterns[pattern] = BoundedRegex(pattern)
        return found.find(text) is not None
