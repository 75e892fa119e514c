"""Hearing: what a member's answer says to its ensemble: whether it is one, its vote, and if it is good enough."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from penstock.domain.ensembles.ensemble import EnsembleDefinition, EnsembleKind
from penstock.domain.ensembles.verdict import Heard
from penstock.formats.answers import written_answer
from penstock.formats.answers.answer_text import answer_text
from penstock.scoring.bounded_regex import BoundedRegex, PatternTooSlow
from penstock.scoring.bounded_schema import BoundedSchema, TooComplex
from penstock.service.ensembles import classifying

FAILED: Final = Heard(answered=False)
_NUMBER: Final = re.compile(r"(?<![\d.])\d+(?!\d|\.\d)")
_MOST_DIGITS: Final = 4
"""Longer ones are nobody's number."""
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")


class Hearing:
    """The hearing of one file's or one call's answers, by one definition.

    A pattern or schema that takes too long on a text finds nothing in it: no vote, not accepted.
    """

    def __init__(self, definition: EnsembleDefinition) -> None:
        self._definition = definition
        extract, accept = definition.extract, definition.accept
        self._vote_pattern = BoundedRegex(extract.regex) if extract.regex is not None else None
        self._good_pattern = BoundedRegex(accept.regex) if accept.regex is not None else None
        self._good_schema = BoundedSchema(accept.json_schema) if accept.json_schema is not None else None
        self._labels = {extract.normalise.applied(one): one for one in extract.labels or ()}

    def heard(self, body: bytes | None, place: int) -> Heard:
        """What the member at this place said, or the judge or classifier behind them; None: it has not answered."""
        if body is None:
            return FAILED
        if place == len(self._definition.members):
            if (classifier := self._definition.classifier) is not None:
                return Heard(answered=True, label=classifying.heard(classifier, body))
            return self._judged(answer_text(body) or "")
        if self._definition.kind is EnsembleKind.VOTE:
            return Heard(answered=True, vote=self._vote(answer_text(body)))
        if self._definition.kind is EnsembleKind.CASCADE:
            return Heard(answered=True, accepted=self._is_good(body))
        return Heard(answered=True)

    def _judged(self, text: str) -> Heard:
        if self._definition.kind is EnsembleKind.COMBINE:
            return Heard(answered=True, accepted=bool(text.strip()))
        return Heard(answered=True, choice=_number(text))

    def _vote(self, text: str | None) -> str | None:
        found = None if text is None else self._found(text)
        if found is None:
            return None
        extract = self._definition.extract
        label = extract.normalise.applied(found)
        return (label or None) if extract.labels is None else self._labels.get(label)

    def _found(self, text: str) -> str | None:
        if self._vote_pattern is not None:
            try:
                return self._vote_pattern.find(text)
            except PatternTooSlow:
                return None
        extract = self._definition.extract
        if extract.json is not None:
            return _pointed(text, extract.json)
        if extract.labels is not None:  # an engine that is held to an enum writes it as JSON, with quotes
            return _pointed(text, "") or text
        return text

    def _is_good(self, body: bytes) -> bool:
        least = self._definition.accept.mean_logprob_over
        if least is not None and not ((mean := mean_logprob(body)) is not None and mean > least):
            return False
        if self._good_pattern is None and self._good_schema is None:
            return True
        text = answer_text(body)
        if text is None:
            return False
        try:
            if self._good_pattern is not None and self._good_pattern.find(text) is None:
                return False
            return self._good_schema is None or self._good_schema.fault(text) is None
        except (PatternTooSlow, TooComplex):
            return False


def _number(text: str) -> int | None:
    """The number that a judge names: the last one in its text, since some think aloud before."""
    found = _NUMBER.findall(text)
    return int(found[-1]) if found and len(found[-1]) <= _MOST_DIGITS else None


def _pointed(text: str, pointer: str) -> str | None:
    """What a JSON pointer (RFC 6901) leads to in a text, as it would be written; None if that is nothing or null."""
    try:
        value = json.loads(text, parse_constant=_refuse)
        for part in pointer.split("/")[1:]:
            value = _part(value, part.replace("~1", "/").replace("~0", "~"))
        if value is None:
            return None
        found = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    except (LookupError, ValueError, RecursionError):
        return None
    return found.encode("utf-8", "replace").decode()  # half a surrogate pair is no text


def _part(value: Any, name: str) -> Any:
    """What an object or a list has there; raise LookupError if nothing."""
    if isinstance(value, list) and _INDEX.fullmatch(name):
        return value[int(name)]
    if isinstance(value, dict):
        return value[name]
    raise LookupError


def _refuse(constant: str) -> None:
    """NaN and infinities are no JSON, whatever Python reads."""
    raise ValueError(constant)


def mean_logprob(body: bytes) -> float | None:
    """The mean logarithm of its tokens' probabilities, of the first choice; None if it says none."""
    try:
        answer = written_answer.read(body)
    except (ValueError, RecursionError):
        return None
    said: Any = answer.choices[0].logprobs if answer.choices else None
    if not isinstance(said, dict):
        return None
    content, each = said.get("content"), said.get("token_logprobs")
    if isinstance(content, list):
        each = [one.get("logprob") for one in content if isinstance(one, dict)]
    numbers = [one for one in each if isinstance(one, (int, float))] if isinstance(each, list) else []
    try:
        return sum(numbers) / len(numbers) if numbers else None
    except OverflowError:  # a whole number that no float holds
        return None
