"""Stream starts: whether a stream has said something yet, or only that an answer begins; and if that is text."""

from __future__ import annotations

from typing import Any, Final

import msgspec

_DATA: Final = b"data: "
_OF_A_RESPONSE: Final = frozenset(
    {
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    }
)


class _Choice(msgspec.Struct):
    delta: Any = None
    text: Any = None
    finish_reason: Any = None


class _Event(msgspec.Struct):
    type: Any = None
    delta: Any = None
    choices: list[_Choice] | None = None


_read = msgspec.json.Decoder(_Event).decode


def says_something(events: bytes) -> bool:
    """Whether these whole events hold more than an answer's beginning: what can't be read is something."""
    return any(_says(line[len(_DATA) :]) for line in events.split(b"\n") if line.startswith(_DATA))


def writes_text(events: bytes) -> bool:
    """Whether these whole events hold text that is more than white space; thoughts and an end are none."""
    return any(_writes(line[len(_DATA) :]) for line in events.split(b"\n") if line.startswith(_DATA))


def _writes(data: bytes) -> bool:
    try:
        event = _read(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    texts = [one.delta.get("content") if isinstance(one.delta, dict) else one.text for one in event.choices or ()]
    if event.type == "response.output_text.delta":
        texts.append(event.delta)
    return any(isinstance(text, str) and text.strip() for text in texts)


def _says(data: bytes) -> bool:
    try:
        event = _read(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True  # `[DONE]`, say
    if event.choices:
        return any(map(_is_more, event.choices))
    return not (isinstance(event.type, str) and event.type in _OF_A_RESPONSE)


def _is_more(choice: _Choice) -> bool:
    if choice.finish_reason is not None or choice.text:
        return True
    delta = choice.delta
    return any(value for name, value in delta.items() if name != "role") if isinstance(delta, dict) else bool(delta)
