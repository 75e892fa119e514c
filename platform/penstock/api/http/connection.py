"""Connections: a client that stands still, or sends no end of a head, is given up; what it may hold is bounded.

There are so many at most. Beyond that, whoever comes takes the place of the one that has waited longest without a
request in work (kept alive, or in the middle of a head); if all work, it reads a 503.

uvicorn bounds a head neither in bytes nor in time, and waits forever for a reader that reads nothing. What comes after
the head is bounded by whoever reads it (`body.pieces`).
"""

from __future__ import annotations

import asyncio
import resource
from http import HTTPStatus
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADERS: Final = 128
"""With trailers, which uvicorn adds to them. FastAPI's time for reading headers grows with the square of their number:
50,000 of them, which one packet can bring, kept an API busy for minutes."""
_OTHER_FILES: Final = 128
"""What the process opens besides: connections to servers, uploads, logs."""


class Connection(HttpToolsProtocol):
    """One client's connection."""

    seconds: ClassVar[float] = 60.0
    most: ClassVar[int] = 4_000
    idle: ClassVar[dict[Connection, None]] = {}
    """Those without a request in work, the one first that has been so longest."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unread_bytes = 0
        """What came since the parser last gave a head or a piece of a body: of a head, of trailers, of chunk lines."""
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # a stream
        """A client is here; its first head is due, if there is a place for it."""
        super().connection_made(transport)
        if len(self.connections) > self.most and not self._replace_idle():
            self._give_up(HTTPStatus.SERVICE_UNAVAILABLE, "retry-after: 1\r\n")
            return
        self.idle[self] = None
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self.idle.pop(self, None)
        self._stop_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless too much of it leads nowhere."""
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._give_up(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._unread_bytes = 0
        super().on_message_begin()
        self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header or a trailer; one too many is answered by the parser's 400."""
        if len(self.headers) >= MAX_HEADERS:
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._unread_bytes = 0
        self.idle.pop(self, None)
        self._stop_head_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._unread_bytes = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """The answer is written, if not yet sent."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():  # else one in its pipeline has begun
            self.idle[self] = None
        self._watch_writing()

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        super().pause_writing()
        self._watch_writing()

    def _expect_head(self) -> None:
        self._stop_head_timer()
        self._head_timer = self.loop.call_later(self.seconds, self._give_up, HTTPStatus.REQUEST_TIMEOUT)

    def _replace_idle(self) -> bool:
        """Close the connection that has been idle longest; False if none is."""
        longest = next(iter(self.idle), None)
        if longest is None:
            return False
        del self.idle[longest]
        longest.transport.abort()
        return True

    def _give_up(self, status: HTTPStatus, header: str = "") -> None:
        if self.cycle is None or self.cycle.response_complete:
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\n{header}content-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode())
        self.transport.close()
        self._watch_writing()

    def _watch_writing(self, before: int | None = None) -> None:
        """Cut the connection once nothing of what waits to be sent was taken for so long."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        left = self.transport.get_write_buffer_size()
        if left and left == before:
            self.transport.abort()
        elif left:
            self._write_timer = self.loop.call_later(self.seconds, self._watch_writing, left)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_timers(self) -> None:
        self._stop_head_timer()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def connections(seconds: float, most: int) -> type[Connection]:
    """Connections whose clients may stand still for so long; so many of them, or as the open files allow."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = most if files == resource.RLIM_INFINITY else min(most, max(1, files - _OTHER_FILES))
    return type("Connection", (Connection,), {"seconds": seconds, "most": room, "idle": {}})
