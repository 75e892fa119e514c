"""Content: a file's bytes on their way out, in pieces, with ETag and Range (RFC 9110), gzipped for who asks."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from penstock.api.http.request_middleware import HEAD
from penstock.blobs.store import Blobs
from penstock.domain.api_errors import NoSuchRange
from penstock.domain.file import File

_BYTES: Final = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
DOCUMENTED: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The bytes.", "content": _BYTES},
    206: {"description": "The range that was asked for; `content-range` says which.", "content": _BYTES},
    304: {"description": "The client has it: `If-None-Match` names its `etag`."},
}
GZIP_FROM_BYTES: Final = 1_024
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


async def respond(request: Request, blobs: Blobs, file: File) -> Response:
    """Answer 200, 206 or 304; raise NoSuchRange, and Unreadable if the first piece can't be read.

    HEAD is for all of the file, whatever range it names (RFC 9110 14.2), and reads none of it.
    """
    head = HEAD in request.scope
    etag = f'"{file.id}"'  # a file never changes
    gzip = file.bytes >= GZIP_FROM_BYTES and "range" not in request.headers and accepts_gzip(request)
    headers = {
        "etag": f'"{file.id}-gzip"' if gzip else etag,
        "accept-ranges": "bytes",
        "vary": "accept-encoding",
        "content-disposition": _disposition(file.filename),
        "cache-control": "private, no-cache",
    }
    if _matches(request.headers.get("if-none-match"), etag, f'"{file.id}-gzip"'):
        return Response(status_code=304, headers=headers)
    part = (200, 0, file.bytes) if head else _range(request, etag, file.bytes)
    if part is None:
        raise NoSuchRange(headers={"content-range": f"bytes */{file.bytes}"})
    status, start, end = part
    if status == 206:
        headers["content-range"] = f"bytes {start}-{end - 1}/{file.bytes}"
    if gzip:
        headers["content-encoding"] = "gzip"
    else:
        headers["content-length"] = str(end - start)
    if head:
        return StreamingResponse(iter(()), status, headers, media_type="application/octet-stream")
    pieces = await begun(blobs.stream(file.blob_key, start, end))
    if gzip:
        pieces = _gzipped(pieces)
    return StreamingResponse(pieces, status, headers, media_type="application/octet-stream")


def _disposition(filename: str) -> str:
    """Both forms of the name (RFC 6266): curl and wget read only the plain one, which has ASCII alone."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _matches(given: str | None, *etags: str) -> bool:
    if given is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in given.split(",")]
    return "*" in tags or any(etag in tags for etag in etags)


def _range(request: Request, etag: str, size: int) -> tuple[int, int, int] | None:
    """206 and the wanted bytes as [start, end), or 200 and all of them; None if the file has none such.

    What is not one range of bytes, or is of another version of the file, is passed over, as RFC 9110 allows.
    """
    wanted = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if wanted is None or request.headers.get("if-range", etag) != etag:
        return 200, 0, size
    first, last = wanted.groups()
    if not first:
        start, end = max(0, size - int(last or 0)), size
        return (206, start, end) if last and start < end else (None if last else (200, 0, size))
    start, end = int(first), min(int(last) + 1, size) if last else size
    if last and int(last) < start:
        return 200, 0, size
    return (206, start, end) if start < size else None


def accepts_gzip(request: Request) -> bool:
    """Whether an answer to it may be gzipped."""
    for coding in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, quality = coding.strip().partition(";")
        if name.strip() == "gzip":
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


async def begun(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same pieces, the first one read already: what can't be read is an error and not a cut answer."""
    first = await anext(pieces, b"")

    async def chained() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return chained()


async def _gzipped(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    squeeze = zlib.compressobj(level=1, wbits=31)
    async for piece in pieces:
        if squeezed := await asyncio.to_thread(squeeze.compress, piece):
            yield squeezed
    yield squeeze.flush()
