"""Scorers at work: each kind's way from an answer to a score."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from operator import mul
from typing import Any, Final

from penstock.domain.api_errors import BadRequest
from penstock.domain.evals.scorer import WHOLE, Scorer, ScorerKind
from penstock.scoring.bounded_regex import BoundedRegex, PatternTooSlow
from penstock.scoring.bounded_schema import BoundedSchema, TooComplex
from penstock.scoring.score import PASSED, Score, left_out, missed, shown
from penstock.scoring.text import normalised

NOTHING: Final = object()
"""Nothing is expected of the line; null is something."""
_SLOW: Final = left_out("the pattern took too long")

Measure = Callable[[str, Any], Score]
"""From an answer's text and what was expected of it (or NOTHING) to its score."""


def check(scorers: Sequence[Scorer]) -> None:
    """Raise BadRequest unless all of them can be put to work together."""
    for number, one in enumerate(scorers):
        _measure(one, f"scorers[{number}]")
    if len({one.name for one in scorers}) < len(scorers):
        raise BadRequest("Each scorer has a name of its own.", param="scorers")
    if sum(one.kind is ScorerKind.SIMILARITY for one in scorers) > 1:
        raise BadRequest("An eval has one scorer of the type 'similarity' at most.", param="scorers")


def measure(scorer: Scorer) -> Measure:
    """The scorer at work; that of `similarity` is asked with embeddings instead (`near`)."""
    return _measure(scorer, None)


def _measure(scorer: Scorer, param: str | None) -> Measure:
    if scorer.kind is ScorerKind.EXACT:
        return _exact(scorer, param)
    if scorer.kind is ScorerKind.REGEX:
        return _regex(scorer, param)
    if scorer.kind is ScorerKind.JSON_SCHEMA:
        return _json_schema(scorer, param)
    return lambda answer, expected: left_out("it has no embedding")


def _exact(scorer: Scorer, param: str | None) -> Measure:
    pattern = None if scorer.extract is None else BoundedRegex(scorer.extract, param and f"{param}.extract")

    def exact(answer: str, expected: Any) -> Score:
        if expected is NOTHING:
            return left_out("nothing is expected of it")
        text: str | None = answer
        if pattern is not None:
            try:
                text = pattern.find(answer)
            except PatternTooSlow:
                return _SLOW
            if text is None:
                return missed(f"nothing to extract in {shown(answer)}")
        wanted = expected if isinstance(expected, list) else [expected]
        if any(_equal(text or "", one, scorer) for one in wanted):
            return PASSED
        return missed(f"expected {shown(expected)}, got {shown(text)}")

    return exact


def _equal(text: str, expected: Any, scorer: Scorer) -> bool:
    """Texts are compared as texts; any other value with the JSON that the answer is."""
    if isinstance(expected, str):
        return normalised(text, scorer.normalise) == normalised(expected, scorer.normalise)
    try:
        return json.dumps(json.loads(text), sort_keys=True) == json.dumps(expected, sort_keys=True)
    except (ValueError, RecursionError):
        return False


def _regex(scorer: Scorer, param: str | None) -> Measure:
    pattern = BoundedRegex(scorer.pattern or "", param and f"{param}.pattern")

    def regex(answer: str, expected: Any) -> Score:
        try:
            found = pattern.find(answer)
        except PatternTooSlow:
            return _SLOW
        return PASSED if found is not None else missed(f"no match in {shown(answer)}")

    return regex


def _json_schema(scorer: Scorer, param: str | None) -> Measure:
    schema = BoundedSchema(scorer.schema or {}, param and f"{param}.schema")

    def json_schema(answer: str, expected: Any) -> Score:
        try:
            fault = schema.fault(answer)
        except TooComplex:
            return left_out("the schema asks for too many steps")
        except PatternTooSlow:
            return _SLOW
        return PASSED if fault is None else missed(fault)

    return json_schema


def near(scorer: Scorer, answer: Sequence[float], expected: Sequence[float]) -> Score:
    """The cosine of two embeddings: -1 to 1."""
    if len(answer) != len(expected):
        return left_out("the embeddings have different lengths")
    size = (sum(map(mul, answer, answer)) * sum(map(mul, expected, expected))) ** 0.5
    if not 0 < size < float("inf"):
        return left_out("the embedding has no direction")
    milli = round(max(-1.0, min(1.0, sum(map(mul, answer, expected)) / size)) * WHOLE)
    passed = milli >= scorer.threshold_milli
    return Score(milli, passed, None if passed else "not near enough")


def of_json(values: Sequence[Mapping[str, Any]]) -> tuple[Scorer, ...]:
    """Scorers as a row keeps them."""
    return tuple(map(Scorer.of_json, values))
