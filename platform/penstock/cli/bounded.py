"""The HTTP client of commands: an answer that is held as a whole has a bound, since anybody may answer."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Final

import httpx

MOST_BYTES: Final = 1024**3
"""Of one answer: a page of results is far below it. Files are written as they come, whatever their length."""


class Bounded(httpx.Client):
    """As httpx's, but that what is no stream may be so long only; raises DecodingError beyond."""

    def send(self, request: httpx.Request, *, stream: bool = False, **how: Any) -> httpx.Response:
        """Ask, and read the answer unless it is a stream."""
        answer = super().send(request, stream=True, **how)
        if not stream:
            with closing(answer):
                answer._content = bounded(answer, MOST_BYTES)  # what httpx's own `read` does
        return answer


def bounded(answer: httpx.Response, most_bytes: int) -> bytes:
    """All of an answer's body, unpacked; raise DecodingError if it is longer."""
    found = bytearray()
    for piece in answer.iter_bytes():
        found += piece
        if len(found) > most_bytes:
            raise httpx.DecodingError(f"it is longer than {most_bytes:,} bytes", request=answer.request)
    return bytes(found)
