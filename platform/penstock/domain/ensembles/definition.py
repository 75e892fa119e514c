"""Definitions of ensembles: read from what an operator wrote, JSON or YAML, and checked by themselves."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from penstock.domain.api_errors import BadRequest
from penstock.domain.ensembles.classifier import classifier
from penstock.domain.ensembles.ensemble import (
    DEFAULT_TIMEOUT_SECONDS,
    Accept,
    EnsembleDefinition,
    EnsembleKind,
    EnsembleMember,
    Extract,
    Judge,
    Method,
    Normalise,
    Tie,
)
from penstock.domain.ensembles.fields import (
    a_choice,
    a_count,
    a_list,
    a_number,
    a_text,
    a_whole_number,
    an_object,
    one_of,
    params_of,
)
from penstock.domain.ensembles.rules import used_rules
from penstock.domain.money import PICOS

MOST_MEMBERS: Final = 20
MOST_LABELS: Final = 200
MOST_WEIGHT: Final = 1_000_000
MOST_SECONDS: Final = 86_400
_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)*", re.DOTALL)
"""RFC 6901, section 3."""
_OF_ALL: Final = {"name", "kind", "members"}
_OF_MEMBER: Final = {"model", "params", "weight"}
_FIELDS: Final[Mapping[EnsembleKind, set[str]]] = {
    EnsembleKind.ROUTE: {"rules", "default", "classifier", "on_error", "timeout_seconds"},
    EnsembleKind.FALLBACK: {"timeout_seconds", "max_cost"},
    EnsembleKind.VOTE: {"extract", "tie", "judge", "min_responses", "on_error", "timeout_seconds", "max_cost"},
    EnsembleKind.CASCADE: {"accept", "on_error", "timeout_seconds", "max_cost"},
    EnsembleKind.BEST_OF: {"judge", "min_responses", "on_error", "timeout_seconds", "max_cost"},
    EnsembleKind.COMBINE: {"judge", "method", "min_responses", "on_error", "timeout_seconds", "max_cost"},
}
_OF_CLASSIFIER: Final = {"on_error", "timeout_seconds"}
"""What a route has only with a classifier."""
_OF_JUDGE: Final = {"judge", "max_cost"}
"""What a vote has only if a judge decides its ties: else nobody is asked later."""
MOST_COST: Final = 1_000_000
"""Of the currency."""
MOST_PROMPT: Final = 20_000
READS_CHARS: Final = 8_000
LEAST_READS_CHARS: Final = 100
MOST_READS_CHARS: Final = 1_000_000
_ASKED: Final = "\n\nThe request:\n\n{request}\n\n{answers}"
_NAME_THE_BEST: Final = (
    "Below are a request and {count} answers to it, each under its number. Say which answer is the best one: "
    f"reply with its number and nothing else.{_ASKED}"
)
PROMPTS: Final[Mapping[EnsembleKind, str]] = {
    EnsembleKind.VOTE: _NAME_THE_BEST,
    EnsembleKind.BEST_OF: _NAME_THE_BEST,
    EnsembleKind.COMBINE: (
        "Below are a request and {count} answers to it, some of which may be wrong. Write one answer to the request "
        f"that takes what is best and right of them. Reply with that answer and nothing else.{_ASKED}"
    ),
}
_NAMING: Final[Mapping[str, Any]] = {"temperature": 0, "max_tokens": 1_024}
_JUDGE_PARAMS: Final[Mapping[EnsembleKind, Mapping[str, Any]]] = {
    EnsembleKind.VOTE: _NAMING,
    EnsembleKind.BEST_OF: _NAMING,
    EnsembleKind.COMBINE: {},
}
"""What a judge is asked with, unless its own params say otherwise."""


def read(value: Any) -> EnsembleDefinition:
    """The definition that was written; raises BadRequest with what is wrong, and where."""
    every = an_object(value, "", _OF_ALL.union(*_FIELDS.values()))
    name, kind = a_text(every, "name", ""), _kind(a_text(every, "kind", ""))
    fields = an_object(every, "", _OF_ALL | _FIELDS[kind])
    if "@" in name:
        raise BadRequest("An ensemble's name has no '@': aliases and versions are of models.", param="name")
    members = _members(fields.get("members"), name, kind)
    if kind is EnsembleKind.ROUTE:
        return _route(every, name, members)
    tie = one_of(fields, "tie", Tie.HEAVIEST)
    judged = tie is Tie.JUDGE if kind is EnsembleKind.VOTE else kind.judged and "method" not in fields
    if kind is EnsembleKind.VOTE and not judged:
        an_object(every, "", _OF_ALL | _FIELDS[kind] - _OF_JUDGE)
    return EnsembleDefinition(
        name,
        kind,
        members,
        extract=_extract(fields.get("extract", {})),
        tie=tie,
        min_responses=a_count(fields, "min_responses", 1, len(members)),
        accept=_accept(fields) if kind is EnsembleKind.CASCADE else Accept(),
        judge=_judge(fields.get("judge"), kind, members, name) if judged else None,
        method=_method(fields) if "method" in fields else None,
        fails_with_member=a_choice(fields, "on_error", ("skip", "fail"), "") == "fail",
        timeout_seconds=a_number(fields, "timeout_seconds", "", DEFAULT_TIMEOUT_SECONDS, 0, MOST_SECONDS),
        max_cost=_max_cost(fields),
    )


def _route(every: Mapping[str, Any], name: str, members: tuple[EnsembleMember, ...]) -> EnsembleDefinition:
    """Its classifier may fail, and is waited for; without one nobody is heard before the answer."""
    if "classifier" not in every:
        fields = an_object(every, "", _OF_ALL | _FIELDS[EnsembleKind.ROUTE] - _OF_CLASSIFIER)
        return EnsembleDefinition(name, EnsembleKind.ROUTE, members, used_rules(fields, members, None))
    found = classifier(every["classifier"], members, name)
    return EnsembleDefinition(
        name,
        EnsembleKind.ROUTE,
        members,
        used_rules(every, members, found),
        classifier=found,
        fails_with_member=a_choice(every, "on_error", ("skip", "fail"), "") == "fail",
        timeout_seconds=a_number(every, "timeout_seconds", "", DEFAULT_TIMEOUT_SECONDS, 0, MOST_SECONDS),
    )


def _kind(kind: str) -> EnsembleKind:
    try:
        return EnsembleKind(kind)
    except ValueError:
        there = ", ".join(EnsembleKind)
        raise BadRequest(f"{kind[:40]!r} is no kind of ensemble; there are: {there}.", param="kind") from None


def _members(value: Any, name: str, kind: EnsembleKind) -> tuple[EnsembleMember, ...]:
    made: list[EnsembleMember] = []
    times: Counter[str] = Counter()
    weighs = kind is EnsembleKind.VOTE or kind.judged
    for place, one in enumerate(a_list(value, "members", 2 if kind.gathers else 1, MOST_MEMBERS)):
        at = f"members[{place}]"
        every = an_object(one, at, _OF_MEMBER)
        fields = every if weighs else an_object(every, at, _OF_MEMBER - {"weight"})
        model = a_text(fields, "model", at)
        if model == name:
            raise BadRequest("An ensemble can't be its own member.", param=f"{at}.model")
        times[model] += 1
        if times[model] > 1 and not kind.gathers:
            raise BadRequest(f"The member {model!r} is there twice.", param=f"{at}.model")
        label = model if times[model] == 1 else f"{model}#{times[model]}"
        if label in {member.label for member in made}:
            message = f"Two members would be called {label!r}: name one of them with its alias or version."
            raise BadRequest(message, param=f"{at}.model")
        made.append(
            EnsembleMember(model, params_of(fields.get("params", {}), f"{at}.params"), _weight(fields, at), label)
        )
    return tuple(made)


def _max_cost(fields: Mapping[str, Any]) -> int | None:
    """In picounits, as all money is counted; what is less than one is none."""
    found = a_number(fields, "max_cost", "", None, 0, MOST_COST)
    if found is None:
        return None
    if "method" in fields:
        message = "A combine of numbers asks all its members at once, and nobody later: it has no max_cost."
        raise BadRequest(message, param="max_cost")
    picos = int(Decimal(repr(found)) * PICOS)
    if picos < 1:
        raise BadRequest(f"max_cost is at least {1 / PICOS:g}.", param="max_cost")
    return picos


def _method(fields: Mapping[str, Any]) -> Method:
    if "judge" in fields:
        raise BadRequest("A combine has a judge, for texts, or a method, for numbers; not both.", param="method")
    return one_of(fields, "method", Method.MEAN)


def _judge(value: Any, kind: EnsembleKind, members: tuple[EnsembleMember, ...], name: str) -> Judge:
    if value is None:
        other = " Of embeddings, scores and ranks it needs a method instead." if kind is EnsembleKind.COMBINE else ""
        what = "A vote with 'tie: judge'" if kind is EnsembleKind.VOTE else f"A {kind}"
        message = f"{what} needs a judge: a model that reads the answers.{other}"
        raise BadRequest(message, code="missing_required_parameter", param="judge")
    fields = an_object(value, "judge", {"model", "prompt", "reads_chars", "params"})
    model = a_text(fields, "model", "judge")
    if model == name:
        raise BadRequest("An ensemble can't be its own judge.", param="judge.model")
    prompt = a_text(fields, "prompt", "judge", MOST_PROMPT) if "prompt" in fields else PROMPTS[kind]
    if "{answers}" not in prompt:
        raise BadRequest("A judge's prompt has '{answers}' where it reads them.", param="judge.prompt")
    reads = a_whole_number(fields, "reads_chars", "judge", READS_CHARS, LEAST_READS_CHARS, MOST_READS_CHARS)
    params = {**_JUDGE_PARAMS[kind], **params_of(fields.get("params", {}), "judge.params")}
    labels = {one.label for one in members}
    label = next(one for one in ("judge", *(f"judge#{n}" for n in range(2, MOST_MEMBERS + 3))) if one not in labels)
    return Judge(EnsembleMember(model, params, label=label), prompt, reads)


def _weight(fields: Mapping[str, Any], at: str) -> int | Fraction:
    """As it was written in decimals: of 0.1, 0.2 and 0.3 the first two are as heavy as the third."""
    weight = Fraction(repr(a_number(fields, "weight", at, 1, 0, MOST_WEIGHT)))
    return weight.numerator if weight.denominator == 1 else weight  # whole numbers add up ten times as fast


def _extract(value: Any) -> Extract:
    fields = an_object(value, "extract", {"regex", "json", "json_schema", "normalise"})
    ways = [name for name in ("regex", "json", "json_schema") if name in fields]
    if len(ways) > 1:
        raise BadRequest(f"A vote is read in one way, not by {' and '.join(ways)}.", param=f"extract.{ways[1]}")
    normalise = one_of(fields, "normalise", Normalise.TRIM, "extract")
    if "regex" in fields:
        return Extract(regex=a_text(fields, "regex", "extract", 1_000), normalise=normalise)
    if "json" in fields:
        return Extract(json=_pointer(fields["json"], "extract.json"), normalise=normalise)
    if "json_schema" in fields:
        pointer, labels = _labels(fields["json_schema"], normalise)
        return Extract(json=pointer, labels=labels, normalise=normalise)
    return Extract(normalise=normalise)


def _pointer(value: Any, at: str) -> str:
    if not isinstance(value, str) or len(value) > 200 or not _POINTER.fullmatch(value):
        message = "A JSON pointer is empty or begins with '/' (/label, say); '~' is written ~0 in it, '/' in a name ~1."
        raise BadRequest(message, param=at)
    return value


def _labels(schema: Any, normalise: Normalise) -> tuple[str | None, tuple[str, ...]]:
    """Where the label stands that a schema's enum lists: all of the text, or one property of an object."""
    at = "extract.json_schema"
    if isinstance(schema, dict) and "enum" in schema:
        return None, _enum(schema["enum"], f"{at}.enum", normalise)
    properties = schema.get("properties") if isinstance(schema, dict) else None
    found = [
        (name, one["enum"])
        for name, one in (properties.items() if isinstance(properties, dict) else ())
        if isinstance(one, dict) and "enum" in one
    ]
    if len(found) != 1:
        message = "The schema needs an 'enum', or one property that has one: those are the labels."
        raise BadRequest(message, param=at)
    name, values = found[0]
    pointer = str(name).replace("~", "~0").replace("/", "~1")
    return f"/{pointer}", _enum(values, f"{at}.properties.{name}.enum", normalise)


def _enum(values: Any, at: str, normalise: Normalise) -> tuple[str, ...]:
    if not isinstance(values, list) or not 2 <= len(values) <= MOST_LABELS:
        raise BadRequest(f"An enum has 2 to {MOST_LABELS} labels.", param=at)
    if not all(isinstance(one, str) and one.strip() and len(one) <= 200 for one in values):
        raise BadRequest("An enum's labels are texts of 1 to 200 characters.", param=at)
    if len({normalise.applied(one) for one in values}) < len(values):
        raise BadRequest(f"Two labels of the enum are the same once they are normalised ({normalise}).", param=at)
    return tuple(values)


def _accept(every: Mapping[str, Any]) -> Accept:
    fields = an_object(every.get("accept", {}), "accept", {"mean_logprob_over", "regex", "json_schema"})
    if not fields:
        message = "A cascade says when an answer is good enough: mean_logprob_over, regex or json_schema."
        raise BadRequest(message, param="accept")
    schema = fields.get("json_schema")
    if "json_schema" in fields and not isinstance(schema, dict):
        raise BadRequest("accept.json_schema is a JSON schema.", param="accept.json_schema")
    return Accept(
        a_number(fields, "mean_logprob_over", "accept", None, -math.inf, 0),
        a_text(fields, "regex", "accept", 1_000) if "regex" in fields else None,
        schema,
    )
