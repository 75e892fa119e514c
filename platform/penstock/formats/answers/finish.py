"""Finishes: how an engine's answer ended: whole, cut because max_tokens ran out, or cut before it said anything."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

import msgspec


class Finish(StrEnum):
    """How an answer ended."""

    WHOLE = "whole"
    TRUNCATED = "truncated"
    EMPTY = "empty"
    """Truncated, and nothing is said: a reasoning model may spend all its tokens on its thoughts."""


class _Message(msgspec.Struct):
    content: Any = None
    tool_calls: Any = None
    function_call: Any = None


class _Choice(msgspec.Struct):
    finish_reason: Any = None
    message: _Message | None = None
    text: Any = None


class _Item(msgspec.Struct):
    type: Any = None
    content: Any = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] | None = None
    status: Any = None
    output: list[_Item] | None = None


_read = msgspec.json.Decoder(_Answer).decode


def finish(body: bytes) -> Finish:
    """How this answer ended; an answer that no token limit cut costs a search for two words."""
    if b'"length"' not in body and b'"incomplete"' not in body:
        return Finish.WHOLE
    try:
        answer = _answer(body)
    except (ValueError, RecursionError):
        return Finish.WHOLE  # no answer of an endpoint that has a limit
    if answer.choices:
        if all(choice.finish_reason != "length" for choice in answer.choices):
            return Finish.WHOLE
        return Finish.TRUNCATED if any(map(_says, answer.choices)) else Finish.EMPTY
    if answer.status != "incomplete":
        return Finish.WHOLE
    return Finish.TRUNCATED if any(map(_holds, answer.output or ())) else Finish.EMPTY


def _answer(body: bytes) -> _Answer:
    try:
        return _read(body)
    except msgspec.DecodeError:  # half a surrogate pair, which models do answer
        return msgspec.convert(json.loads(body), _Answer)


def _says(choice: _Choice) -> bool:
    """A chat's message with a text or a call, or a completion's text."""
    message = choice.message
    if message is None:
        return _is_text(choice.text)
    return _is_text(message.content) or bool(message.tool_calls) or bool(message.function_call)


def _holds(item: _Item) -> bool:
    """An item of a response that is more than thoughts and empty texts."""
    if item.type == "reasoning":
        return False
    if item.type != "message":
        return True
    parts = item.content if isinstance(item.content, list) else []
    return any(not isinstance(part, dict) or _is_text(part.get("text", part.get("refusal"))) for part in parts)


def _is_text(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else bool(value)
