"""Requests for `transformers serve`: in its words, or refused where it would silently do something else.

Source: transformers 5.19, `cli/serving/`. Its server logs of a field that it does not know how to do and goes on
(`UNUSED_CHAT_COMPLETION_FIELDS`, `UNUSED_LEGACY_COMPLETION_FIELDS`), and with continuous batching it samples every
request as the first one asked (`CBGenerateManager.init_cb`): all but the number of tokens is shared. So here all are
greedy, and who asks for what it can't do hears it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

_NAME: Final = "The engine of this model (transformers serve)"
_DROPPED: Final = ("ignore_eos", "priority", "cache_salt", "top_p", "seed")
"""What it answers 422 to, or what means nothing where nothing is drawn."""
_EMPTY: Final[tuple[Any, ...]] = (None, False, 0, "", [], {})


class Unsupported(ValueError):
    """It can't do what a request asks for; the message is for whoever asked."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{_NAME} {why}: leave {field} out, or ask a model on another engine.")
        self.field = field


def _is_one(value: Any) -> bool:
    return value in (None, 1)


def _is_none(value: Any) -> bool:
    return value in _EMPTY


def _is_text(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and value.get("type") == "text")


_HARMLESS: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "n": (_is_one, "gives one answer to a request"),
    "best_of": (_is_one, "gives one answer to a request"),
    "temperature": (_is_none, "answers greedily, and draws nothing at random"),
    "response_format": (_is_text, "does not hold its answers to a format"),
    "tool_choice": (lambda value: value in (None, "auto"), "chooses by itself whether it calls a tool"),
    "functions": (_is_none, "knows tools, not functions"),
    "logprobs": (_is_none, "tells no logprobs"),
    "top_logprobs": (_is_none, "tells no logprobs"),
    "echo": (_is_none, "does not say the prompt again"),
    "stop": (_is_none, "stops at the model's own end and at max_tokens alone"),
    "logit_bias": (_is_none, "knows no biases"),
    "presence_penalty": (_is_none, "knows no penalties"),
    "frequency_penalty": (_is_none, "knows no penalties"),
}
"""Fields whose values change the answer: which values change nothing, and what it does instead."""


def translated(body: bytes, source: str) -> bytes:
    """A body as it takes it; `source` is its own name for its model.

    Raises Unsupported. What is no JSON object passes: it says so itself.
    """
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    if not isinstance(fields, dict):
        return body
    for name, (is_harmless, why) in _HARMLESS.items():
        if name in fields and not is_harmless(fields.pop(name)):
            raise Unsupported(name, why)
    for name in _DROPPED:
        fields.pop(name, None)
    limit = fields.pop("max_completion_tokens", None)
    if limit is not None:
        fields["max_tokens"] = limit
    # The first request's `temperature` is everybody's.
    return msgspec.json.encode({**fields, "model": source, "temperature": 0.0})
