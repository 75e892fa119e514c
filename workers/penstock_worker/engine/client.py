"""The engine client: asks an engine over HTTP and brings back bytes; what they say is for others to read.

    EngineGone      no whole answer: refused, reset or closed before its end. The line may or may not have run
    EngineTimeout   no whole answer in time. The connection is closed, which makes vLLM abort the request
    AnswerTooLarge  more than is kept of one answer; the connection is closed, too

An answer is taken whole (`ask`), or as it comes (`open`), at the pace of whoever takes it: what is not taken waits in
the engine's connection, so a slow caller costs no memory here. Both call `done` once when the engine is done with the
request: an engine that does not notice that its client left is so later than whoever asked (abandoned.py).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec

from penstock.domain.engines.profile import EngineAbort, EngineProfile
from penstock.domain.engines.profiles import VLLM
from penstock.formats.engine_body import with_text
from penstock.wire.http_connections import Connect, Exchange, HttpConnections, NotConnected
from penstock_worker.engine import headers, rate_limits
from penstock_worker.engine.abandoned import AbandonedRequests

# vLLM is told to keep idle connections for 600 s: ours must end first.
_KEEPALIVE_SECONDS: Final = 300.0
_HEADERS: Final = {"content-type": "application/json"}
_MOST_ID_CHARACTERS: Final = 200
_ABORT_SECONDS: Final = 5.0
DEFAULT_ANSWER_BYTES: Final = 64 * 1024 * 1024


R = TypeVar("R")


def _nothing() -> None:
    """Nobody wants to hear that the engine is done."""


class EngineGone(Exception):
    """The engine closed or refused the connection before the answer was whole.

    `sent` is False if the request certainly never reached it; `generation` is the engine's, when the request was sent.
    """

    def __init__(self, message: str, *, sent: bool = True, generation: int = 0) -> None:
        super().__init__(message)
        self.sent = sent
        self.generation = generation


class EngineTimeout(Exception):
    """The engine did not answer in time."""


class AnswerTooLarge(Exception):
    """The engine's answer has more bytes than are kept of one: one elsewhere may talk without end."""


@dataclass(frozen=True)
class EngineAnswer:
    """What the engine said to one request."""

    status: int
    body: bytes
    request_id: str
    """The id that we sent as X-Request-Id, which vLLM takes over into its own ids and logs; of an engine that does not,
    the one that it gave the request itself, if it says so."""
    seconds: float
    generation: int
    """Which start of the engine was asked."""
    retry_after_seconds: float | None = None
    hold_seconds: float | None = None
    """For how long it wants nothing more."""


@dataclass(frozen=True)
class Stream:
    """An answer that comes: its head, and its bytes as the engine sends them."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    chunks: AsyncIterator[bytes]
    """Ends with the answer; raises EngineGone and EngineTimeout."""
    generation: int
    """Which start of the engine was asked."""


class EngineClient:
    """A pool of connections to one engine's unix socket, on one asyncio loop; used with `async with`.

    It has no limit of its own: the gate is the limit.
    """

    def __init__(
        self,
        socket: Path,
        *,
        new_id: Callable[[], str] = lambda: secrets.token_hex(16),
        clock: Callable[[], float] = time.monotonic,
        generation: Callable[[], int] = lambda: 1,
        profile: EngineProfile = VLLM,
        max_answer_bytes: int = DEFAULT_ANSWER_BYTES,
    ) -> None:
        self._connections = HttpConnections(_to(socket), "engine", _KEEPALIVE_SECONDS)
        self._new_id = new_id
        self._clock = clock
        self._generation = generation
        self._profile = profile
        self._max_answer_bytes = max_answer_bytes
        self.abandoned = AbandonedRequests(self._tell if profile.abort is EngineAbort.REQUEST_ID else None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.abandoned.close()
        self._connections.close()

    async def ask(
        self, endpoint: str, body: bytes, timeout_seconds: float, done: Callable[[], None] = _nothing
    ) -> EngineAnswer:
        """POST a line's body to an endpoint such as `/v1/chat/completions`.

        Raises EngineGone, EngineTimeout and AnswerTooLarge.
        """
        request_id = self._new_id()
        told = {"x-request-id": request_id, headers.LINE: "1"}
        if self._profile.abort is EngineAbort.DISCONNECT:
            try:
                return await self._send("POST", endpoint, body, timeout_seconds, told)
            finally:
                done()
        # Whoever gives up after his time is one who leaves: the engine has as long again.
        asking = self._send("POST", endpoint, self._named(body, request_id), 2 * timeout_seconds, told)
        task = asyncio.ensure_future(asking)
        answer = await self._stayed_for(task, _as_it_is, endpoint, timeout_seconds, request_id, done)
        done()
        return answer

    async def _stayed_for(
        self,
        task: asyncio.Task[R],
        rest: Callable[[asyncio.Task[R]], Awaitable[object]],
        endpoint: str,
        timeout_seconds: float,
        request_id: str,
        done: Callable[[], None],
    ) -> R:
        """What an engine that does not notice who leaves says; who leaves before abandons the rest.

        `done` is not called for what is returned.
        """
        try:
            await asyncio.wait({task}, timeout=timeout_seconds)
        except BaseException:
            self.abandoned.leave(rest(task), request_id, done)
            raise
        if not task.done():
            self.abandoned.leave(rest(task), request_id, done)
            raise EngineTimeout(f"{endpoint} did not answer within {timeout_seconds:.0f} s")
        if task.cancelled() or task.exception():
            done()
        return task.result()

    @asynccontextmanager
    async def open(
        self,
        endpoint: str,
        body: bytes,
        timeout_seconds: float,
        request_id: str,
        done: Callable[[], None] = _nothing,
    ) -> AsyncIterator[Stream]:
        """POST a body and take the answer as it comes; `timeout_seconds` is for all of it.

        Leaving before its end closes the connection, which makes vLLM abort the request. Raises EngineGone and
        EngineTimeout before the head; after it the chunks do.
        """
        generation, told = self._generation(), {"x-request-id": request_id}
        notices = self._profile.abort is EngineAbort.DISCONNECT
        if notices:
            try:
                exchange = await self._asked("POST", endpoint, body, timeout_seconds, told, generation)
            except BaseException:
                done()
                raise
        else:
            named = self._named(body, request_id)
            task = asyncio.ensure_future(self._asked("POST", endpoint, named, timeout_seconds, told, generation))
            exchange = await self._stayed_for(task, _opened_and_drained, endpoint, timeout_seconds, request_id, done)
        try:
            yield Stream(
                exchange.status,
                exchange.headers,
                self._chunks(exchange, endpoint, timeout_seconds, generation),
                generation,
            )
        finally:
            if notices or exchange.at_end:
                exchange.close()
                done()
            else:
                self.abandoned.leave(_drained(exchange), request_id, done)

    def _named(self, body: bytes, request_id: str) -> bytes:
        """With the id that it can be aborted by, if the engine takes one."""
        if self._profile.abort is not EngineAbort.REQUEST_ID:
            return body
        return with_text(body, self._profile.id_field, request_id)

    async def _tell(self, request_id: str) -> None:
        """Abort a request by its id."""
        body = msgspec.json.encode({self._profile.id_field: request_id})
        await self._send("POST", self._profile.abort_path, body, _ABORT_SECONDS, {"x-request-id": self._new_id()})

    async def _chunks(
        self, exchange: Exchange, endpoint: str, timeout_seconds: float, generation: int
    ) -> AsyncIterator[bytes]:
        while True:
            # What the taker does between two chunks is not the engine's fault: only the reading is looked at.
            try:
                chunk = await exchange.read()
            except (TimeoutError, ConnectionError) as error:
                raise _ours(error, endpoint, timeout_seconds, generation) from error
            if not chunk:
                return
            yield chunk

    async def metrics(self, path: str = "/metrics", timeout_seconds: float = 5.0) -> str:
        """The engine's Prometheus page. Raises EngineGone and EngineTimeout."""
        try:
            answer = await self._send("GET", path, b"", timeout_seconds, {"x-request-id": self._new_id()})
        except AnswerTooLarge as error:
            raise EngineGone(f"{path}: {error}") from error
        if answer.status != 200:
            raise EngineGone(f"{path} answered {answer.status}")
        return answer.body.decode(errors="replace")

    async def _asked(
        self, method: str, endpoint: str, body: bytes, timeout_seconds: float, told: dict[str, str], generation: int
    ) -> Exchange:
        try:
            return await self._connections.ask(method, endpoint, body, _HEADERS | told, timeout_seconds)
        except (TimeoutError, ConnectionError) as error:
            raise _ours(error, endpoint, timeout_seconds, generation) from error

    async def _send(
        self, method: str, endpoint: str, body: bytes, timeout_seconds: float, told: dict[str, str]
    ) -> EngineAnswer:
        begun, generation = self._clock(), self._generation()
        exchange = await self._asked(method, endpoint, body, timeout_seconds, told, generation)
        try:
            whole = await self._whole(exchange)
        except (TimeoutError, ConnectionError) as error:
            raise _ours(error, endpoint, timeout_seconds, generation) from error
        finally:
            exchange.close()
        headers = exchange.headers
        return EngineAnswer(
            exchange.status,
            whole,
            self._id_of(headers, told["x-request-id"]),
            self._clock() - begun,
            generation,
            rate_limits.retry_after_seconds(headers),
            rate_limits.hold_seconds(headers),
        )

    async def _whole(self, exchange: Exchange) -> bytes:
        pieces, size = [], 0
        while piece := await exchange.read():
            pieces.append(piece)
            size += len(piece)
            if size > self._max_answer_bytes:
                raise AnswerTooLarge(f"it has more than {self._max_answer_bytes} bytes")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _id_of(self, headers: Mapping[str, str], ours: str) -> str:
        """The id that the engine knows a request by."""
        theirs = "" if self._profile.request_ids else headers.get("x-request-id", "")
        return "".join(filter(str.isprintable, theirs))[:_MOST_ID_CHARACTERS] or ours


def _to(socket: Path) -> Connect:
    return lambda protocol: asyncio.get_running_loop().create_unix_connection(protocol, str(socket))


def _ours(error: Exception, endpoint: str, timeout_seconds: float, generation: int) -> EngineTimeout | EngineGone:
    """What a connection's error is to whoever asked."""
    if isinstance(error, TimeoutError):
        return EngineTimeout(f"{endpoint} did not answer within {timeout_seconds:.0f} s")
    return EngineGone(f"{endpoint}: {error!r}", sent=not isinstance(error, NotConnected), generation=generation)


async def _as_it_is(task: asyncio.Task[R]) -> None:
    await task


async def _opened_and_drained(task: asyncio.Task[Exchange]) -> None:
    await _drained(await task)


async def _drained(exchange: Exchange) -> None:
    """Read an answer to its end, for nobody."""
    try:
        while await exchange.read():
            pass
    finally:
        exchange.close()
