"""The tail of a running batch: what was answered last, from the API's pages of answers as they come.

Of each answer the beginning is kept, and so much is read of them at a look, whatever size they have.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json

from penstock.console.api_client import ApiProblem, GrantedApi
from penstock.console.batches import answers

SHOWN: Final = 50
_MOST_LINE_BYTES: Final = 16 * 1024
_MOST_READ_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True)
class TailLine:
    """A line as it came."""

    custom_id: str | None
    failed: bool
    said: answers.LineAnswer


@dataclass(frozen=True)
class Tail:
    """The last lines, the newest first; `problem` says why there are none."""

    lines: Sequence[TailLine] = ()
    problem: str | None = None


async def read(api: GrantedApi, id: str, done: int) -> Tail:
    """The last lines of a batch of which so many are done."""
    after = max(0, done - SHOWN)
    pieces = api.pieces(f"/v1/batches/{id}/results", {"after": after, "limit": 2 * SHOWN})
    try:
        async with aclosing(pieces) as some:
            found = [_line(begin) async for begin in _beginnings(some)]
    except ApiProblem as error:
        return Tail(problem=error.message)
    return Tail(tuple(reversed(found[-SHOWN:])))


async def _beginnings(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Of each line its first bytes."""
    rest, read = bytearray(), 0
    async for piece in pieces:
        read += len(piece)
        *whole, last = piece.split(b"\n")
        for part in whole:
            rest += part[: _MOST_LINE_BYTES - len(rest)]
            yield bytes(rest)
            rest.clear()
        rest += last[: _MOST_LINE_BYTES - len(rest)]
        if read > _MOST_READ_BYTES:
            return


def _line(begin: bytes) -> TailLine:
    cut = len(begin) >= _MOST_LINE_BYTES
    try:
        found: dict[str, Any] = from_json(begin, allow_partial="trailing-strings" if cut else False)
        response = found.get("response") or {}
        error = found.get("error") or (response.get("body") or {}).get("error") or {}
        failed = bool(error) or response.get("status_code", 0) >= 400
        why = error.get("message") or f"status {response.get('status_code')}"
        said = answers.LineAnswer(str(why)) if failed else answers.say(response.get("body"), cut)
        return TailLine(found.get("custom_id"), failed, said)
    except (ValueError, AttributeError, TypeError):
        return TailLine(None, False, answers.LineAnswer(begin.decode("utf-8", "replace")))
