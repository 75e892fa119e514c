"""Folded answers: what an answer that was made of several says otherwise than the one that was taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec


class _Used(msgspec.Struct):
    usage: dict[str, Any] | None = None


_read_usage = msgspec.json.Decoder(_Used).decode
_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_read_choices = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_NULL: Final = msgspec.Raw(b"null")
_RESPONSES: Final = "/v1/responses"
_NAMES: Final = {
    "prompt_tokens": "input_tokens",
    "prompt_tokens_details": "input_tokens_details",
    "completion_tokens": "output_tokens",
}
"""What responses call otherwise than all other answers."""


def summed_usage(bodies: Iterable[bytes], endpoint: str = "") -> dict[str, Any] | None:
    """The sum of what answers say of their tokens, field by field; None if none says any.

    The answers are of one endpoint, but for vectors, which are counted by this one's names.
    """
    total: dict[str, Any] | None = None
    for body in bodies:
        try:
            usage = _read_usage(body).usage
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if usage is not None and endpoint == _RESPONSES:
            usage = {_NAMES.get(name, name): value for name, value in usage.items()}
        if usage is not None:
            total = usage if total is None else _sum(total, usage)
    return total


def _sum(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(one)
    for name, value in other.items():
        before = found.get(name)
        if isinstance(value, dict):
            found[name] = _sum(before, value) if isinstance(before, dict) else value
        elif _is_number(value):
            found[name] = before + value if _is_number(before) else value
        else:
            found.setdefault(name, value)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def without_logprobs(body: bytes) -> bytes:
    """The answer without its choices' logprobs; all else stays as it was written."""
    if b'"logprobs"' not in body:
        return body
    try:
        answer = _read_fields(body)
        choices = _read_choices(answer.get("choices", b"[]"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    for choice in choices:
        if "logprobs" in choice:
            choice["logprobs"] = _NULL
    return msgspec.json.encode(answer | {"choices": msgspec.Raw(msgspec.json.encode(choices))})
