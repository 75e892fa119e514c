"""Conditions: what a rule of a route may ask about a request. A new one is a row of the table.

They read the request alone, never the fleet, the clock or chance: the same request goes to the same member in a batch,
a job and a call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from penstock.domain.ensembles.languages import LANGUAGES

LABEL: Final = "label"
MOST_TOKENS: Final = 100_000_000
MOST_LANGUAGES: Final = 50
_RESPONSE_FORMATS: Final = ("text", "json_object", "json_schema")
_FENCE: Final = re.compile(r"^[ \t]{0,3}(?:```|~~~)", re.MULTILINE)
_CODE_LINE: Final = re.compile(
    r"[;{}]$|^(?:(?:async )?def|class|fn|func|function|public|private|static|void|struct|impl|package)\b.*[({:]"
    r"|^(?:import|from|using|require|#include|#define|const|let|var|return)\b.*[\w>)\]\"';]$"
    r"|^(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE TABLE)\b|^(?:if|for|while)\b.*[:{]$"
)
_LEAST_CODE_LINES: Final = 2
_MOST_READ_LINES: Final = 2_000


class LabelUnknown(Exception):
    """A rule needs the classifier's word, and it was not asked yet."""


class Facts(Protocol):
    """What conditions ask about a request."""

    @property
    def prompt_tokens(self) -> int:
        """Estimated by the bytes of the prompt."""

    @property
    def last(self) -> str:
        """The text of the last message; of a prompt or input, all of it, or the last of several."""

    @property
    def tools(self) -> bool:
        """Whether it brings tools."""

    @property
    def response_format(self) -> str | None:
        """The type of answer that it asks for, if it says one."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What it says about itself."""

    @property
    def language(self) -> str | None:
        """The code of the language of its last user message; None if that is not sure."""

    @property
    def label(self) -> str | None:
        """What the ensemble's classifier says of it; None: nothing. Raises LabelUnknown before that was asked."""

    def matches(self, pattern: str) -> bool:
        """Whether the pattern is found in its last message. Raises what the search raises that takes too long."""


@dataclass(frozen=True)
class Condition:
    """One row."""

    takes: str
    """What may stand behind it, for people."""
    valid: Callable[[Any], bool]
    holds: Callable[[Any, Facts], bool]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_metadata(value: Any) -> bool:
    return isinstance(value, dict) and 0 < len(value) <= 16 and all(isinstance(one, str) for one in value.values())


def _is_languages(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= MOST_LANGUAGES and all(_is_language(one) for one in value)


def _is_language(value: Any) -> bool:
    return isinstance(value, str) and value in LANGUAGES


CONDITIONS: Final[Mapping[str, Condition]] = {
    "prompt_tokens_over": Condition(
        "a whole number of tokens", _is_count, lambda value, facts: facts.prompt_tokens > value
    ),
    "prompt_tokens_under": Condition(
        "a whole number of tokens", _is_count, lambda value, facts: facts.prompt_tokens < value
    ),
    "contains_code": Condition("true or false", _is_flag, lambda value, facts: contains_code(facts.last) is value),
    "tools": Condition("true or false", _is_flag, lambda value, facts: facts.tools is value),
    "response_format": Condition(
        f"one of {', '.join(_RESPONSE_FORMATS)}",
        lambda value: value in _RESPONSE_FORMATS,
        lambda value, facts: (facts.response_format or "text") == value,
    ),
    "metadata": Condition(
        "texts by key, 16 at most",
        _is_metadata,
        lambda value, facts: all(facts.metadata.get(key) == wanted for key, wanted in value.items()),
    ),
    "regex": Condition("a pattern", lambda value: isinstance(value, str), lambda value, facts: facts.matches(value)),
    "language": Condition(
        f"a list of 1 to {MOST_LANGUAGES} ISO 639-1 codes of languages that can be told apart (de, fr, zh and so on)",
        _is_languages,
        lambda value, facts: facts.language in value,
    ),
    LABEL: Condition(
        "one of the classifier's labels",
        lambda value: isinstance(value, str),
        lambda value, facts: facts.label == value,
    ),
}
"""By name; where a rule has several, all must hold. A label is asked for last: it takes a call."""


def contains_code(text: str) -> bool:
    """Whether a text holds a fenced block, or two lines that look like program text (of its first 2,000)."""
    if "\n" not in text:
        return False
    if _FENCE.search(text):
        return True
    found = 0
    for line in text.split("\n", _MOST_READ_LINES)[:_MOST_READ_LINES]:
        found += _CODE_LINE.search(line.strip()[:400]) is not None
        if found == _LEAST_CODE_LINES:
            return True
    return False
