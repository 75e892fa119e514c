"""HTTP connections: requests to a peer of ours, on connections that are kept, with one exchange at a time on each.

It is what the platform's processes say to each other and to their engines, and no more: requests whose body is there,
answers of a length, in chunks or to the end of the connection. No redirects, cookies, compression or upgrades.
httptools parses. A request costs 0.11 ms of processor time here, and 0.31 with aiohttp, whose client was the largest
part of what a line costs a worker.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, cast

import httptools

_MOST_AHEAD_BYTES: Final = 128 * 1024
"""Read ahead of a slow taker: then the peer's writes wait."""
_MOST_HEAD_BYTES: Final = 32 * 1024
"""Of an answer; a socket's read may bring as much again."""

Connect = Callable[[Callable[[], asyncio.Protocol]], Awaitable[object]]
"""Makes a connection to the peer for the protocol that its argument makes. Raises OSError and TimeoutError."""


class NotConnected(ConnectionError):
    """Nobody listens: the request was not sent."""


class Exchange:
    """One request's answer, as it comes. `close` ends it, whether it is whole or not."""

    __slots__ = ("_connection", "_error", "_pieces", "_size", "_timer", "_waiting", "headers", "is_whole", "status")

    def __init__(self, connection: HttpConnection, timeout_seconds: float | None) -> None:
        self.status = 0
        """0 until the head is there."""
        self.headers: dict[str, str] = {}
        """Names in lower case."""
        self.is_whole = False
        """All of it has come, if not all is taken."""
        self._connection = connection
        self._pieces: list[bytes] = []
        self._size = 0
        self._error: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._timer = None if timeout_seconds is None else connection.loop.call_later(timeout_seconds, self._expire)

    async def head(self) -> None:
        """Wait for status and headers. Raises ConnectionError and TimeoutError."""
        while not self.status:
            await self._news()

    async def read(self) -> bytes:
        """What has come since the last time, once something has; nothing at the end. Raises as `head` does."""
        while not self._pieces:
            if self.is_whole:
                return b""
            await self._news()
        pieces, self._pieces, self._size = self._pieces, [], 0
        self._connection.flow()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def at_end(self) -> bool:
        """All of it has come, and was taken."""
        return self.is_whole and not self._pieces

    def close(self) -> None:
        """Give the connection back if the answer is whole; else break it, which tells the peer."""
        self._stop_timer()
        self._connection.release(self)

    async def _news(self) -> None:
        if self._error:
            raise self._error
        self._waiting = self._connection.loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    # What its connection tells.

    def wake(self) -> None:
        """Something has come."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def add(self, piece: bytes) -> None:
        """A part of its body has come."""
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > _MOST_AHEAD_BYTES:
            self._connection.hold()

    def end(self) -> None:
        """It is whole, unless it failed before: its connection ends then, too."""
        self.is_whole = self._error is None
        self._stop_timer()

    def fail(self, error: Exception) -> None:
        """No more will come."""
        if not self.is_whole and self._error is None:
            self._error = error
        self.wake()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self.fail(TimeoutError())
        self._connection.abort()


class HttpConnection(asyncio.Protocol):
    """One connection: its requests go out one after the other, each when the answer before it is whole."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, keepalive_seconds: float, idle: Callable[[HttpConnection], None]
    ) -> None:
        """`idle` is told when it may be used again, which it may be for so long."""
        self.loop = loop
        self._keepalive_seconds = keepalive_seconds
        self._idle_since = 0.0
        self._idle = idle
        self._head_bytes = 0
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._headers: dict[str, str] = {}
        self._is_held = False
        self._is_kept = True

    @property
    def is_usable(self) -> bool:
        """Whether another request may be sent."""
        transport = self._transport
        fresh = time.monotonic() - self._idle_since < self._keepalive_seconds
        return transport is not None and self._exchange is None and fresh and not transport.is_closing()

    def send(self, head: bytes, body: bytes, timeout_seconds: float | None) -> Exchange:
        """Send a request; its answer has so much time, to its end."""
        assert self._transport is not None
        self._exchange = Exchange(self, timeout_seconds)
        self._head_bytes = 0
        self._transport.writelines((head, body))
        return self._exchange

    def release(self, exchange: Exchange) -> None:
        """Its answer is wanted no more."""
        if exchange is not self._exchange:
            return
        self._exchange = None
        unsent = self._transport is not None and self._transport.get_write_buffer_size()
        if unsent or not (exchange.is_whole and self._is_kept):  # whoever answers before it heard all may hear no more
            self.abort()
        elif self._transport is not None and not self._transport.is_closing():
            self._flow_on()
            self._idle_since = time.monotonic()
            self._idle(self)

    def abort(self) -> None:
        """Break it."""
        if self._transport is not None:
            self._transport.abort()

    def hold(self) -> None:
        """Read no further for now."""
        if not self._is_held and self._transport is not None:
            self._is_held = True
            self._transport.pause_reading()

    def flow(self) -> None:
        """What was read was taken."""
        if self._is_held:
            self._flow_on()

    def _flow_on(self) -> None:
        if self._is_held and self._transport is not None and not self._transport.is_closing():
            self._is_held = False
            self._transport.resume_reading()

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        self._transport = cast(asyncio.Transport, transport)
        self._idle_since = time.monotonic()

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        exchange = self._exchange
        if exchange is None:  # nothing was asked
            self.abort()
            return
        try:
            self._parser.feed_data(data)
            if not exchange.status:
                self._count_head(len(data))
        except Exception as error:  # httptools wraps what its callbacks raise, too
            exchange.fail(ConnectionError(f"no HTTP: {error!r}"))
            self.abort()
        exchange.wake()

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone."""
        self._transport = None
        exchange = self._exchange
        if exchange is None:
            return
        to_its_end = not {"content-length", "transfer-encoding"} & exchange.headers.keys()
        if exchange.status and to_its_end and error is None:
            self._is_kept = False
            exchange.end()
        exchange.fail(ConnectionResetError(f"closed before the answer was whole ({error or 'end of stream'})"))

    # What the parser calls.

    def on_message_begin(self) -> None:
        """An answer begins: the one that was asked for, or one behind that."""
        self._headers = {}
        if self._exchange is None or self._exchange.is_whole:
            raise ConnectionError("nothing was asked")

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > _MOST_HEAD_BYTES:
            raise ConnectionError("the head of the answer has no end")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._count_head(len(name) + len(value))
        self._headers[name.decode("latin-1").lower()] = value.decode("utf-8", "replace")

    def on_headers_complete(self) -> None:
        """The head is there; 1xx have none that counts."""
        status = self._parser.get_status_code()
        if status >= 200 and self._exchange is not None:
            self._exchange.status, self._exchange.headers = status, self._headers

    def on_body(self, piece: bytes) -> None:
        """A part of the body."""
        if self._exchange is not None:
            self._exchange.add(piece)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        if self._exchange is not None and self._exchange.status:
            self._is_kept = self._parser.should_keep_alive()
            self._exchange.end()


class HttpConnections:
    """Those to one peer, on one asyncio loop: as many as there are exchanges at once."""

    def __init__(self, connect: Connect, host: str, keepalive_seconds: float) -> None:
        """`host`: as requests name the peer; `keepalive_seconds`: less than it keeps a connection that is idle."""
        self._connect = connect
        self._host = host
        self._keepalive_seconds = keepalive_seconds
        self._idle: deque[HttpConnection] = deque()
        self._closed = False

    def __len__(self) -> int:
        """How many are idle and may be used."""
        return sum(connection.is_usable for connection in self._idle)

    async def ask(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], timeout_seconds: float | None
    ) -> Exchange:
        """Send a request and wait for the head of its answer, which is closed by whoever asks.

        `timeout_seconds` is for all of the answer; None: for ever. Raises NotConnected, ConnectionError, TimeoutError,
        and ValueError for what can't stand in a head.
        """
        head = _head(method, path, self._host, len(body), headers)
        began = time.monotonic()
        connection = self._used() or await self._made(timeout_seconds)
        left = None if timeout_seconds is None else timeout_seconds - (time.monotonic() - began)
        exchange = connection.send(head, body, left)
        try:
            await exchange.head()
        except BaseException:
            exchange.close()
            raise
        return exchange

    def close(self) -> None:
        """Close those that are idle; the others close as their exchanges end."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()

    def _used(self) -> HttpConnection | None:
        """The one that was used last, so that those which are not needed grow old."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
            connection.abort()
        return None

    async def _made(self, timeout_seconds: float | None) -> HttpConnection:
        connection = HttpConnection(asyncio.get_running_loop(), self._keepalive_seconds, self._put)
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._connect(lambda: connection)
        except BaseException as error:
            connection.abort()
            if isinstance(error, OSError) and not isinstance(error, TimeoutError | NotConnected):
                raise NotConnected(str(error)) from error
            raise
        if not connection.is_usable:
            raise NotConnected("it was closed as soon as it stood")
        return connection

    def _put(self, connection: HttpConnection) -> None:
        if self._closed:
            connection.abort()
            return
        while self._idle and not self._idle[0].is_usable:
            self._idle.popleft().abort()
        self._idle.append(connection)


def _head(method: str, path: str, host: str, length: int, headers: Mapping[str, str]) -> bytes:
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"{method} {path} HTTP/1.1\r\nhost: {host}\r\n{fields}content-length: {length}\r\n\r\n"
    if head.count("\r") != len(headers) + 4 or head.count("\n") != len(headers) + 4 or " " in path or "\0" in head:
        raise ValueError("a path or a header has a character that can't stand in a request's head")
    return head.encode()
