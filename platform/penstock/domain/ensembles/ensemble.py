"""An ensemble: members, and the rule that makes one answer of theirs; what one may be, read from what was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from penstock.domain.api_errors import BadRequest
from penstock.domain.ensembles.conditions import CONDITIONS

MOST_MEMBERS: Final = 20
MOST_RULES: Final = 50
MOST_PARAMS: Final = 50
_NOT_PARAMS: Final = frozenset(
    {
        "model", "messages", "prompt", "input", "instructions", "tools", "stream", "stream_options", "background",
        "metadata", "response_format", "text", "cache", "cache_salt", "priority", "service_tier", "request_id", "user",
    }
)  # fmt: skip
"""What a request asks, or what a rule or the platform reads of it: no member changes that."""


class EnsembleKind(StrEnum):
    """How one answer is made of its members'."""

    ROUTE = "route"
    """Each request goes to one member, by rules."""


_PLANNED: Final = ("fallback", "vote", "cascade", "best_of", "combine")


@dataclass(frozen=True)
class EnsembleMember:
    """A model that may be asked in the ensemble's place."""

    model: str
    """A model, `name@alias` or `name@v3`."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Fields that a request has there if it does not say them itself."""


@dataclass(frozen=True)
class Rule:
    """Which member is used when all conditions hold; without any it always is."""

    use: str
    when: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """For people: `prompt_tokens_over 4000 and tools true`, or `otherwise`."""
        return " and ".join(f"{name} {_said(value)}" for name, value in self.when.items()) or "otherwise"


@dataclass(frozen=True)
class EnsembleDefinition:
    """What an operator wrote, checked by itself: whether its members are there is for the registry to say."""

    name: str
    kind: EnsembleKind
    members: tuple[EnsembleMember, ...]
    rules: tuple[Rule, ...]
    """The first one whose conditions hold counts; the last one has none."""

    @property
    def has_patterns(self) -> bool:
        """Whether a rule searches for one, which may take long."""
        return any("regex" in rule.when for rule in self.rules)

    def member(self, model: str) -> EnsembleMember:
        """The member that is this model."""
        return next(one for one in self.members if one.model == model)


@dataclass(frozen=True)
class Ensemble:
    """One version of an ensemble: it never changes."""

    id: int
    version: int
    definition: EnsembleDefinition
    created_at: datetime
    created_by: str

    @property
    def name(self) -> str:
        """As requests name it."""
        return self.definition.name

    @property
    def label(self) -> str:
        """Its version as people and answers say it."""
        return f"v{self.version}"

    def chosen(self, member: EnsembleMember) -> ChosenMember:
        """What is to be known of a request that goes to this member."""
        return ChosenMember(self.id, self.name, self.version, self.definition.kind, member.model, member.params)


@dataclass(frozen=True)
class MemberCounts:
    """What went to one member of one version: lines of batches and jobs that are kept, and calls."""

    lines: int = 0
    completed: int = 0
    failed: int = 0
    calls: int = 0
    failed_calls: int = 0


@dataclass(frozen=True, eq=False)
class ChosenMember:
    """The member that a request, or all of a slice's lines, went to; and as whose.

    One that routes a file makes one of each, which are compared by being the same: it does so for each line.
    """

    ensemble_id: int
    ensemble: str
    version: int
    kind: EnsembleKind
    model: str
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def head(self) -> dict[str, str]:
        """What is known of it before an answer is there."""
        return {
            "ensemble": self.ensemble,
            "version": f"v{self.version}",
            "kind": self.kind.value,
            "winner": self.model,
        }

    def trace(self, outcome: str, tokens: int, seconds: float) -> dict[str, Any]:
        """What an answer says of how it was made: `outcome` is `answered`, `reused` or `refused`."""
        member = {"model": self.model, "outcome": outcome, "tokens": tokens, "ms": round(seconds * 1_000)}
        return {**self.head, "members": [member]}


def read(value: Any) -> EnsembleDefinition:
    """The definition that was written; raises BadRequest with what is wrong, and where."""
    fields = _object(value, "", {"name", "kind", "members", "rules", "default"})
    name, kind = _text(fields, "name", ""), _kind(_text(fields, "kind", ""))
    if "@" in name:
        raise BadRequest("An ensemble's name has no '@': aliases and versions are of models.", param="name")
    members = _members(fields.get("members"), name)
    rules = _rules(fields, {one.model for one in members})
    used = {one.use for one in rules}
    if unused := next((one.model for one in members if one.model not in used), None):
        raise BadRequest(f"No rule uses the member {unused!r}.", param="rules")
    return EnsembleDefinition(name, kind, members, rules)


def _kind(kind: str) -> EnsembleKind:
    try:
        return EnsembleKind(kind)
    except ValueError:
        there = ", ".join(EnsembleKind)
        not_yet = "is not there yet" if kind in _PLANNED else "is no kind of ensemble"
        raise BadRequest(f"{kind[:40]!r} {not_yet}; there is: {there}.", param="kind") from None


def _members(value: Any, name: str) -> tuple[EnsembleMember, ...]:
    made: list[EnsembleMember] = []
    for place, one in enumerate(_list(value, "members", MOST_MEMBERS)):
        at = f"members[{place}]"
        fields = _object(one, at, {"model", "params"})
        model = _text(fields, "model", at)
        if model == name:
            raise BadRequest("An ensemble can't be its own member.", param=f"{at}.model")
        if any(model == before.model for before in made):
            raise BadRequest(f"The member {model!r} is there twice.", param=f"{at}.model")
        made.append(EnsembleMember(model, _params(fields.get("params", {}), f"{at}.params")))
    return tuple(made)


def _params(value: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or len(value) > MOST_PARAMS or not all(isinstance(name, str) for name in value):
        raise BadRequest(f"params are fields of a request with their values, {MOST_PARAMS} at most.", param=at)
    if odd := next((name for name in value if name in _NOT_PARAMS), None):
        raise BadRequest(f"A member can't set {odd!r}: that is the request's own.", param=f"{at}.{odd}")
    return value


def _rules(fields: Mapping[str, Any], models: set[str]) -> tuple[Rule, ...]:
    written = _list(fields["rules"], "rules", MOST_RULES) if "rules" in fields else []
    rules = [_rule(one, f"rules[{place}]", models) for place, one in enumerate(written)]
    if "default" in fields:
        rules.append(Rule(_used(_text(fields, "default", ""), "default", models)))
    early = next((place for place, one in enumerate(rules[:-1]) if not one.when), None)
    if early is not None:
        message = "A rule without 'when' always holds: it must be the last, and without a 'default' behind it."
        raise BadRequest(message, param=f"rules[{early}]")
    if not rules or rules[-1].when:
        raise BadRequest("Where no rule holds there must be a member: add a 'default'.", param="default")
    return tuple(rules)


def _rule(value: Any, at: str, models: set[str]) -> Rule:
    fields = _object(value, at, {"when", "use"})
    use = _used(_text(fields, "use", at), f"{at}.use", models)
    if "when" not in fields:
        return Rule(use)
    when = _object(fields["when"], f"{at}.when", set(CONDITIONS))
    if not when:
        raise BadRequest("'when' is empty: leave it out of the last rule.", param=f"{at}.when")
    for name, wanted in when.items():
        if not CONDITIONS[name].valid(wanted):
            raise BadRequest(f"{name!r} takes {CONDITIONS[name].takes}.", param=f"{at}.when.{name}")
    return Rule(use, when)


def _used(model: str, at: str, models: set[str]) -> str:
    if model not in models:
        raise BadRequest(f"{model[:200]!r} is no member; there are: {', '.join(sorted(models))}.", param=at)
    return model


def _object(value: Any, at: str, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"{at or 'An ensemble'} must be an object.", param=at or None)
    if odd := next((name for name in value if name not in known), None):
        message = f"{str(odd)[:40]!r} is not known here; there are: {', '.join(sorted(known))}."
        raise BadRequest(message, code="unknown_parameter", param=f"{at}.{odd}".removeprefix("."))
    return value


def _list(value: Any, at: str, most: int) -> list[Any]:
    if not isinstance(value, list) or not 0 < len(value) <= most:
        raise BadRequest(f"{at} is a list of 1 to {most}.", param=at)
    return value


def _text(fields: Mapping[str, Any], name: str, at: str) -> str:
    value = fields.get(name)
    where = f"{at}.{name}".removeprefix(".")
    if value is None:
        raise BadRequest(f"Missing required parameter: '{where}'.", code="missing_required_parameter", param=where)
    if not isinstance(value, str) or not value or len(value) > 200 or "\0" in value:
        raise BadRequest(f"{where} is a text of 1 to 200 characters.", param=where)
    return value


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(f"{key}={one}" for key, one in value.items()) if isinstance(value, dict) else str(value)
