"""Stream requests: what a body says of a stream, taken out of it or said anew."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from penstock.domain.inference_endpoints import CALLED, PromptKind

_OF_A_STREAM: Final = ("stream", "stream_options")
_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Options(msgspec.Struct):
    include_usage: Any = None


class _Asked(msgspec.Struct):
    stream_options: _Options | None = None


_read_asked = msgspec.json.Decoder(_Asked).decode


def wants_usage(body: bytes) -> bool:
    """Whether a body that asks for a stream asks for its usage, too."""
    try:
        options = _read_asked(body).stream_options
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return options is not None and options.include_usage is True


def without_stream(body: bytes) -> bytes:
    """A JSON object that asks for a whole answer; all else stays as it was written."""
    fields = _read_fields(body)
    return msgspec.json.encode({name: value for name, value in fields.items() if name not in _OF_A_STREAM})


def with_stream(body: bytes, endpoint: str) -> bytes:
    """A JSON object that asks for a stream, which says its usage at the end."""
    asked: dict[str, Any] = {"stream": True}
    if CALLED[endpoint].prompt is not PromptKind.RESPONSE:  # those always say it
        asked["stream_options"] = {"include_usage": True}
    return msgspec.json.encode(_read_fields(body) | asked)
