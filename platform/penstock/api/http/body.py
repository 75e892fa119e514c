"""Bodies: read up to a limit and not a byte further, from clients that get on with it; JSON checked against a model."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

import msgspec
from fastapi import Request
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from penstock.api.http import errors, request_turns, wording
from penstock.domain.api_errors import BadRequest, NotSupported, TooLarge, TooMany, TooSlow, Unavailable
from penstock.formats.gunzip import Gunzip

M = TypeVar("M", bound="Asked")


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("it holds a NUL character")
    return text


# Postgres keeps no NUL in its text; what is not text (requests, answers) goes elsewhere as bytes.
Text = Annotated[str, AfterValidator(_no_nul)]


class Asked(BaseModel):
    """A request's body: no silent conversions, no field that is not known."""

    model_config = ConfigDict(strict=True, extra="forbid")


def check_head(request: Request, max_bytes: int, *, gzip: bool = False) -> None:
    """Refuse, before a byte is read, a body that is compressed (other than by gzip), or says that it is too large."""
    if _encoding(request) not in ("identity", *(("gzip",) if gzip else ())):
        raise NotSupported(f"Send the body without Content-Encoding{', or with gzip' if gzip else ''}.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > max_bytes):
        raise TooLarge(f"The body is larger than {max_bytes} bytes.")


def _encoding(request: Request) -> str:
    return request.headers.get("content-encoding", "identity").strip().lower()


PROGRESS_BYTES: Final = 16 * 1024
LEAST_BYTES_PER_SECOND: Final = 16 * 1024


async def pieces(request: Request, seconds: float) -> AsyncIterator[bytes]:
    """The body as it comes, from a client that gets on with it.

    Raises TooSlow if waiting for the next 16 KiB of it, or its end, takes longer than this, or if all of it takes
    longer than this and a second for each 16 KiB that came. Whoever has a piece has its turn (request_turns.py).
    """
    stream, turn = request.stream(), request_turns.of(request.scope)
    left, came, whole = seconds, 0, seconds
    while True:
        began = time.monotonic()
        turn.leave_soon()
        try:
            async with asyncio.timeout(min(left, whole)):  # unlike wait_for, without a task for each piece
                piece = await anext(stream)
        except StopAsyncIteration:
            await turn.enter()
            return
        except TimeoutError:
            raise TooSlow from None
        finally:
            turn.stay()
        took = time.monotonic() - began
        left, came = max(0.0, left - took), came + len(piece)
        whole = max(0.0, whole - took + len(piece) / LEAST_BYTES_PER_SECOND)
        if came >= PROGRESS_BYTES:
            left, came = seconds, 0
        await turn.enter()
        yield piece


async def inflated(request: Request, seconds: float, max_bytes: int) -> AsyncIterator[bytes]:
    """The `pieces` of a body without the gzip that its head may name; raises TooLarge once they are more inflated."""
    if _encoding(request) != "gzip":
        async for piece in pieces(request, seconds):
            yield piece
        return
    gunzip, size = Gunzip(), 0
    try:
        async for piece in pieces(request, seconds):
            for one in gunzip.feed(piece):
                size += len(one)
                if size > max_bytes:
                    raise TooLarge(f"The body is larger than {max_bytes} bytes once it is inflated.")
                yield one
        gunzip.end()
    except ValueError as error:
        raise BadRequest(f"The body is not what its Content-Encoding says: {error}.") from None


@dataclass
class HeldBytes:
    """What one tenant's body holds of the room."""

    tenant: str
    bytes: int = 0


class Room:
    """Memory for bodies that are being read, of all requests together; small bodies always find some.

    One tenant has at most half of it: whoever sends large bodies slowly leaves the other half to the others.
    """

    SMALL_BYTES: Final = 64 * 1024

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self._share = max_bytes // 2
        self._of: Counter[str] = Counter()

    @contextmanager
    def held(self, tenant: str) -> Iterator[HeldBytes]:
        """What one body holds, which grows by `grow`; it is given back at the end."""
        held = HeldBytes(tenant)
        try:
            yield held
        finally:
            self._count(held, 0)

    def grow(self, held: HeldBytes, size: int) -> None:
        """Let a body hold so many bytes; raise TooMany if its tenant, Unavailable if others hold too much."""
        more = size - held.bytes
        if size <= self.SMALL_BYTES or more <= 0:
            return
        if self._of[held.tenant] + more > self._share:
            message = "You are sending too many large requests at this moment; try again shortly."
            raise TooMany(message, headers={"retry-after": "1"})
        if more > self._left:
            raise Unavailable("Too many large requests are being sent at this moment; try again shortly.")
        self._count(held, size)

    def _count(self, held: HeldBytes, size: int) -> None:
        self._left -= size - held.bytes
        self._of[held.tenant] += size - held.bytes
        if not self._of[held.tenant]:
            del self._of[held.tenant]
        held.bytes = size


async def read(request: Request, max_bytes: int) -> bytes:
    """Read a tenant's body; raise TooLarge as soon as it is known to be larger, TooSlow, or what `Room.grow` raises."""
    with request.app.state.platform.room.held(request.scope["penstock.access"].tenant) as held:
        return await read_into(request, max_bytes, held)


async def read_into(request: Request, max_bytes: int, held: HeldBytes) -> bytes:
    """The same in room that its caller holds, and keeps for as long as the body is needed."""
    check_head(request, max_bytes)
    here = request.app.state.platform
    body = bytearray()
    async for piece in pieces(request, here.settings.slow_body_seconds):
        body += piece
        if len(body) > max_bytes:
            raise TooLarge(f"The body is larger than {max_bytes} bytes.")
        here.room.grow(held, len(body))
    return bytes(body)


def decode(raw: bytes, type: Any = Any, where: str = "") -> Any:
    """Decode JSON strictly (no NaN, UTF-8 only, sane depth); raise BadRequest with what is at fault below `where`."""
    try:
        return msgspec.json.decode(raw, type=type)
    except msgspec.ValidationError as error:
        raise _misshapen(str(error), where) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise BadRequest(f"The body is not valid JSON: {why}", code="invalid_json") from None


_AT: Final = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_FIELD: Final = re.compile(r"Object (?P<how>contains unknown|missing required) field `(?P<name>.*)`", re.DOTALL)


def _misshapen(message: str, where: str) -> BadRequest:
    """msgspec's words about JSON of the wrong shape, as an error that names the parameter."""
    found = _AT.fullmatch(message)
    assert found is not None, "it matches anything"
    place = (where + (found["path"] or "")).removeprefix(".")
    field = _FIELD.fullmatch(found["what"])
    if field is None:
        return BadRequest(f"Invalid '{place or 'body'}': {wording.of_msgspec(found['what'])}.", param=place or None)
    param = f"{place}.{field['name'][:100]}".removeprefix(".")
    if field["how"].startswith("missing"):
        return BadRequest(f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)
    return BadRequest(f"Unknown parameter: '{param}'.", code="unknown_parameter", param=param)


def check(model: type[M], value: Any) -> M:
    """Check decoded JSON against a model; raise BadRequest with the first fault."""
    if not isinstance(value, dict):
        raise BadRequest("The body must be a JSON object.")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise errors.from_validation(error.errors(include_url=False, include_input=False)) from None


async def optional(model: type[M], request: Request, max_bytes: int) -> M:
    """The body checked against a model; none at all is an empty object. For `documented(…, required=False)`."""
    return check(model, decode(await read(request, max_bytes) or b"{}"))


def documented(model: type[Asked], *, required: bool = True) -> dict[str, Any]:
    """What the OpenAPI page says of a body that the route reads by itself."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}
