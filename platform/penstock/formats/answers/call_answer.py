"""Call answers: errors in OpenAI's envelope, whole events of a stream, and the tier that was used.

Whatever is not an error and needs no tier passes as the engine wrote it, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from penstock.domain.inference_endpoints import WRITING
from penstock.formats.answers.engine_error import reshaped
from penstock.formats.answers.written_answer import mended

EVENT_STREAM: Final = "text/event-stream"
MOST_HELD_BYTES: Final = 1024 * 1024
"""Of an event that is not whole yet."""

_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_END: Final = b"\n\n"
_ERROR: Final = b'data: {"error"'


class Events:
    """Server-sent events on their way: gives those that are whole, and holds back the beginning of the next."""

    def __init__(self) -> None:
        self.held = bytearray()
        self.torn = False
        """An event that was too long to hold went out before its end."""

    def feed(self, piece: bytes) -> bytes:
        """The whole events that this piece completes, as they came; empty if it completes none."""
        if not self.held and piece.endswith(_END):
            self.torn = False
            return piece
        searched = max(0, len(self.held) - 3)
        self.held += piece
        end = max(_after(self.held, _END, searched), _after(self.held, b"\r\n\r\n", searched))
        if end:
            whole, self.held = bytes(self.held[:end]), self.held[end:]
            self.torn = False
            return whole
        if len(self.held) > MOST_HELD_BYTES:
            self.torn = True
            return self.rest()
        return b""

    def rest(self) -> bytes:
        """What is held, at the end of a stream that ended well."""
        rest = bytes(self.held)
        self.held.clear()
        return rest


def _after(data: bytearray, end: bytes, start: int) -> int:
    found = data.rfind(end, start)
    return 0 if found < 0 else found + len(end)


def error_event(body: bytes, torn: bool = False) -> bytes:
    """An error in a stream; OpenAI's SDKs raise it."""
    return (_END if torn else b"") + b"data: " + body + _END


def has_tier(endpoint: str) -> bool:
    """Whether answers of this endpoint say which tier was used."""
    return endpoint in WRITING


def saying(body: bytes, said: Mapping[str, Any]) -> bytes:
    """A JSON object with these fields set, `model` only where it has one; all others stay as they were written.

    But for half a surrogate pair, which becomes a replacement character. What is no JSON object stays as it is.
    """
    try:
        fields = fields_of(body)
    except ValueError:
        return body
    return msgspec.json.encode(fields | {name: value for name, value in said.items() if _has(fields, name)})


def fields_of(body: bytes) -> dict[str, msgspec.Raw]:
    """A JSON object's fields, as they were written; raises ValueError for what is none."""
    try:
        return _read_fields(body)
    except RecursionError:
        raise ValueError("It is nested too deeply.") from None
    except ValueError:  # half a surrogate pair, which models do answer
        try:
            return _read_fields(mended(body))
        except RecursionError:
            raise ValueError("It is nested too deeply.") from None


def _has(fields: Mapping[str, object], name: str) -> bool:
    return name != "model" or name in fields


def events_saying(events: bytes, said: Mapping[str, Any]) -> bytes:
    """The same for each event of a stream; the events of a response carry it inside."""

    def say(data: bytes) -> bytes:
        fields = fields_of(data)
        if "object" in fields:
            return saying(data, said)
        if "response" in fields:
            return msgspec.json.encode({**fields, "response": msgspec.Raw(saying(fields["response"], said))})
        return data

    return _each(events, say)


def has_error(events: bytes) -> bool:
    """Whether one of these events is an engine's error. A text can't look like one: it is escaped in its event."""
    return _ERROR in events


def before_error(events: bytes) -> int:
    """How many of these bytes come before the first error."""
    return events.index(_ERROR)


def events_with_envelope(events: bytes) -> bytes:
    """Events whose errors have OpenAI's envelope."""
    return _each(events, lambda data: reshaped(500, data) if data.startswith(b'{"error"') else data)


def _each(events: bytes, change: Callable[[bytes], bytes]) -> bytes:
    lines = events.split(b"\n")
    for index, line in enumerate(lines):
        if line.startswith(b"data: {"):
            try:
                lines[index] = b"data: " + change(line[6:])
            except ValueError:
                continue  # not ours to judge
    return b"\n".join(lines)
