"""A written answer: what of a completion, a chat's answer or a response is read here, and nothing else of its body."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

T = TypeVar("T")


class WrittenMessage(msgspec.Struct):
    """A chat's."""

    content: Any = None
    tool_calls: Any = None
    function_call: Any = None


class WrittenChoice(msgspec.Struct):
    """One of a completion or a chat."""

    finish_reason: Any = None
    message: WrittenMessage | None = None
    text: Any = None
    logprobs: Any = None


class WrittenItem(msgspec.Struct):
    """One of a response's output."""

    type: Any = None
    content: Any = None


class WrittenAnswer(msgspec.Struct):
    """Any of the three."""

    choices: list[WrittenChoice] | None = None
    status: Any = None
    output: list[WrittenItem] | None = None


_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")
"""It may be half of a pair without the other, or of a whole one."""
_read = msgspec.json.Decoder(WrittenAnswer).decode


def read(body: bytes) -> WrittenAnswer:
    """An answer's body; raises ValueError or RecursionError for what is none."""
    try:
        return _read(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:  # half a surrogate pair, which models do answer
        return msgspec.convert(_mended(json.loads(body)), WrittenAnswer)


def read_mended(read: Callable[[bytes], T], body: bytes) -> T | None:
    """What this reader finds, in the body or in what it is once mended; None if it reads neither.

    It is mended only where it can't be read: answers are long, and few have half a pair in them.
    """
    try:
        return read(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return read(mended(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def mended(body: bytes) -> bytes:
    """The body, each half of a surrogate pair in it a replacement character: JSON that any reader takes.

    What is no JSON, or has no such halves, stays as it was written.
    """
    if _HALF.search(body) is None:
        return body
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            return json.dumps(_mended(json.loads(body)), ensure_ascii=False, separators=(",", ":")).encode()
        except (ValueError, RecursionError):
            return body
    return body


def _mended(value: Any) -> Any:
    """The same with a replacement character for each half, so that it is text."""
    return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
