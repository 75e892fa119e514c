"""Member lines: what an output line says of a member of an ensemble, whose answer or error it holds."""

from __future__ import annotations

from typing import Final

import msgspec

from penstock.formats.answers.written_answer import read_mended


class _Response(msgspec.Struct):
    status_code: int
    request_id: str = ""
    cached: bool = False
    body: msgspec.Raw = msgspec.Raw()


class _Error(msgspec.Struct):
    code: str | None = None


class MemberLine(msgspec.Struct):
    """An output line, as far as its fold reads it."""

    custom_id: str
    response: _Response | None = None
    error: _Error | None = None

    @property
    def answered(self) -> bool:
        """Whether an engine gave an answer."""
        return self.response is not None and 200 <= self.response.status_code < 300


class _Member(msgspec.Struct):
    tokens: int = 0
    ms: int = 0


class _Trace(msgspec.Struct):
    members: list[_Member] = []


class _Told(msgspec.Struct):
    penstock: _Trace | None = None


class _EngineError(msgspec.Struct):
    code: str | int | None = None
    type: str | None = None


class _Refusal(msgspec.Struct):
    error: _EngineError | None = None
    code: str | int | None = None


_read = msgspec.json.Decoder(MemberLine).decode
_read_told = msgspec.json.Decoder(_Told).decode
_read_refusal = msgspec.json.Decoder(_Refusal).decode
_NOTHING: Final = _Member()


NOT_JSON: Final = "502 not_json"
"""The `refusal_code` of an answer that was no JSON object; see formats/output.py."""
_UNREADABLE: Final = MemberLine("", error=_Error("not_json"))


def read(line: bytes) -> MemberLine:
    """An output line that this platform wrote; an answer that can't be read is none (`not_json`).

    Half a surrogate pair is read as a replacement character. One answer is never the trouble of its whole file.
    """
    return read_mended(_read, line) or _UNREADABLE


def told(body: bytes) -> tuple[int, int]:
    """The tokens and milliseconds that a member's slice wrote into its answer."""
    try:
        trace = _read_told(body).penstock
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        trace = None
    one = trace.members[0] if trace and trace.members else _NOTHING
    return one.tokens, one.ms


def refusal_code(body: bytes, status: int) -> str:
    """Why an engine refused, in a few words: the HTTP status, and its error's code or type."""
    try:
        found = _read_refusal(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return str(status)
    error = found.error or _EngineError(found.code)
    word = error.code if isinstance(error.code, str) else error.type
    return f"{status} {word or ''}".strip()[:100]
