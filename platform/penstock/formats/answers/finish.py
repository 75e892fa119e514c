"""Finishes: how an engine's answer ended: whole, cut because max_tokens ran out, or cut before it said anything."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from penstock.formats.answers import written_answer
from penstock.formats.answers.written_answer import WrittenChoice, WrittenItem


class Finish(StrEnum):
    """How an answer ended."""

    WHOLE = "whole"
    TRUNCATED = "truncated"
    EMPTY = "empty"
    """Truncated, and nothing is said: a reasoning model may spend all its tokens on its thoughts."""


def finish(body: bytes) -> Finish:
    """How this answer ended; an answer that no token limit cut costs a search for two words."""
    if b'"length"' not in body and b'"incomplete"' not in body:
        return Finish.WHOLE
    try:
        answer = written_answer.read(body)
    except (ValueError, RecursionError):
        return Finish.WHOLE  # no answer of an endpoint that has a limit
    if answer.choices:
        if all(choice.finish_reason != "length" for choice in answer.choices):
            return Finish.WHOLE
        return Finish.TRUNCATED if any(map(_says, answer.choices)) else Finish.EMPTY
    if answer.status != "incomplete":
        return Finish.WHOLE
    return Finish.TRUNCATED if any(map(_holds, answer.output or ())) else Finish.EMPTY


def _says(choice: WrittenChoice) -> bool:
    """A chat's message with a text or a call, or a completion's text."""
    message = choice.message
    if message is None:
        return _is_text(choice.text)
    return _is_text(message.content) or bool(message.tool_calls) or bool(message.function_call)


def _holds(item: WrittenItem) -> bool:
    """An item of a response that is more than thoughts and empty texts."""
    if item.type == "reasoning":
        return False
    if item.type != "message":
        return True
    parts = item.content if isinstance(item.content, list) else []
    return any(not isinstance(part, dict) or _is_text(part.get("text", part.get("refusal"))) for part in parts)


def _is_text(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else bool(value)
