"""Fields: the values of a definition as its operator wrote them, each checked, with its place in what is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, TypeVar

from penstock.domain.api_errors import BadRequest

E = TypeVar("E", bound=StrEnum)

MOST_PARAMS: Final = 50
_NOT_PARAMS: Final = frozenset(
    {
        "model", "messages", "prompt", "input", "instructions", "tools", "stream", "stream_options", "background",
        "metadata", "response_format", "text", "cache", "cache_salt", "priority", "service_tier", "request_id", "user",
        "logprobs",
    }
)  # fmt: skip
"""What a request asks, or what a rule or the platform reads of it: no member changes that."""


def an_object(value: Any, at: str, known: set[str]) -> Mapping[str, Any]:
    """Its fields; a null says nothing."""
    if not isinstance(value, dict):
        raise BadRequest(f"{at or 'An ensemble'} must be an object.", param=at or None)
    if odd := next((name for name in value if name not in known), None):
        message = f"{str(odd)[:40]!r} is not known here; there are: {', '.join(sorted(known))}."
        raise BadRequest(message, code="unknown_parameter", param=f"{at}.{odd}".removeprefix("."))
    return {name: one for name, one in value.items() if one is not None}


def a_list(value: Any, at: str, least: int, most: int) -> list[Any]:
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise BadRequest(f"{at} is a list of {least} to {most}.", param=at)
    return value


def a_text(fields: Mapping[str, Any], name: str, at: str, most: int = 200) -> str:
    value = fields.get(name)
    where = place_of(at, name)
    if value is None:
        raise BadRequest(f"Missing required parameter: '{where}'.", code="missing_required_parameter", param=where)
    if not isinstance(value, str) or not value or len(value) > most or "\0" in value:
        raise BadRequest(f"{where} is a text of 1 to {most} characters.", param=where)
    return value


def a_number(fields: Mapping[str, Any], name: str, at: str, default: Any, above: float, most: float) -> Any:
    if name not in fields:
        return default
    value = fields[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (above < value <= most):
        bounds = f"above {above:g} and at most {most:,}" if above > -math.inf else f"of {most:g} at most"
        raise BadRequest(f"{place_of(at, name)} is a number {bounds}.", param=place_of(at, name))
    return value


def a_count(fields: Mapping[str, Any], name: str, default: int, most: int) -> int:
    """Of members: no more than there are."""
    return a_whole_number(fields, name, "", default, 1, most)


def a_whole_number(fields: Mapping[str, Any], name: str, at: str, default: int, least: int, most: int) -> int:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        where = place_of(at, name)
        raise BadRequest(f"{where} is a whole number from {least:,} to {most:,}.", param=where)
    return value


def one_of(fields: Mapping[str, Any], name: str, default: E, at: str = "") -> E:
    kind = type(default)
    return kind(a_choice(fields, name, tuple(kind), at) or default)


def a_choice(fields: Mapping[str, Any], name: str, there: tuple[str, ...], at: str) -> str | None:
    if name not in fields:
        return None
    value = fields[name]
    if not isinstance(value, str) or value not in there:
        where = place_of(at, name)
        raise BadRequest(f"{where} is one of {', '.join(there)}.", param=where)
    return value


def place_of(at: str, name: str) -> str:
    return f"{at}.{name}".removeprefix(".")


def params_of(value: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or len(value) > MOST_PARAMS or not all(isinstance(name, str) for name in value):
        raise BadRequest(f"params are fields of a request with their values, {MOST_PARAMS} at most.", param=at)
    if odd := next((name for name in value if name in _NOT_PARAMS), None):
        raise BadRequest(f"A member can't set {odd!r}: that is the request's own.", param=f"{at}.{odd}")
    return value
