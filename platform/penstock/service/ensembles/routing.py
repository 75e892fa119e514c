"""Routing: which member of an ensemble a request goes to, and the request as that member is asked it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock.domain.ensembles import route
from penstock.domain.ensembles.ensemble import ChosenMember, Ensemble
from penstock.formats.routed_request import RequestFacts, with_defaults
from penstock.scoring.bounded_regex import BoundedRegex, PatternTooSlow

TOO_SLOW: Final = "ensemble_rule_too_slow"


class Unroutable(Exception):
    """No member can be said. `code` and the message are for whoever asks."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Routed:
    """Where a request goes, by which rule, and its body with the member's params."""

    chosen: ChosenMember
    rule: int
    """Its place among the ensemble's."""
    body: bytes


class Router:
    """The routing of one file, job or call.

    A pattern that is too slow too often is not tried any more (scoring/bounded_regex.py): that is for this file, job
    or call, so that one client's texts are no other's trouble.
    """

    def __init__(self, bytes_per_token: float) -> None:
        self._bytes_per_token = bytes_per_token
        self._patterns: dict[str, BoundedRegex] = {}
        self._chosen: dict[tuple[int, str], ChosenMember] = {}
        """By ensemble and member's model: one of each."""

    def routed(self, ensemble: Ensemble, endpoint: str, body: bytes) -> Routed:
        """Which member a body goes to; raise Unroutable where a pattern takes too long to say it."""
        rules = ensemble.definition.rules
        try:
            rule = route.first(rules, RequestFacts(body, self._bytes_per_token, self._search))
        except PatternTooSlow:
            message = f"A pattern of the ensemble {ensemble.name!r} takes too long on this request."
            raise Unroutable(TOO_SLOW, message) from None
        chosen = self._member(ensemble, rules[rule].use)
        return Routed(chosen, rule, with_defaults(body, endpoint, chosen.params))

    def _member(self, ensemble: Ensemble, model: str) -> ChosenMember:
        found = self._chosen.get((ensemble.id, model))
        if found is None:
            found = ensemble.chosen(ensemble.definition.member(model))
            self._chosen[ensemble.id, model] = found
        return found

    def _search(self, pattern: str, text: str) -> bool:
        found = self._patterns.get(pattern)
        if found is None:
            found = self._patterns[pattern] = BoundedRegex(pattern)
        return found.find(text) is not None
