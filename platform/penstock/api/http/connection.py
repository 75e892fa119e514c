"""Connections: a client that stands still, or sends no end of a head, is given up; what it may hold is bounded.

uvicorn bounds a head neither in bytes nor in time, and waits forever for a reader that reads nothing. What comes after
the head is bounded by whoever reads it (`body.pieces`).
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from penstock.api.http import connection_limit
from penstock.api.http.connection_limit import ConnectionLimit
from penstock.settings import Settings

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADERS: Final = 128
"""With trailers, which uvicorn adds to them. FastAPI's time for reading headers grows with the square of their number:
50,000 of them, which one packet can bring, kept an API busy for minutes."""


_REFUSED_SECONDS: Final = 2.0
ENDLESS: Final = "penstock.endless"
"""In the scope of a request: what ends its answer, which goes on for as long as somebody listens."""


class Connection(HttpToolsProtocol):
    """One client's connection."""

    seconds: ClassVar[float] = 60.0
    limit: ClassVar[ConnectionLimit]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unread_bytes = 0
        """What came since the parser last gave a head or a piece of a body: of a head, of trailers, of chunk lines."""
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._refused = False
        """There is no room for it: it is told so once it asks for something."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # a stream
        """A client is here; its first head is due, if there is room for it."""
        held = len(self.connections)
        super().connection_made(transport)
        if self.limit.admits(held):
            self.limit.waits(self)
            self._expect_head(self.seconds)
        elif self.limit.hears(held):
            self._refused = True
            self._expect_head(_REFUSED_SECONDS)
        else:
            transport.abort()

    def shutdown(self) -> None:
        """The process is about to stop: an answer that has no end of its own soon is told so."""
        super().shutdown()
        if self.cycle is not None and not self.cycle.response_complete:
            scope: dict[str, Any] = dict(self.cycle.scope)
            for end in scope.get(ENDLESS, ()):
                end()

    def make_room(self) -> None:
        """It waits, and somebody else needs its place."""
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._stop_timers()
        self.limit.works(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless too much of it leads nowhere, or there is no room for it."""
        if self._refused:
            self.transport.write(connection_limit.refusal())
            self.transport.close()
            return
        self._unread_bytes += len(data)
        super().data_received(data)
        if self._unread_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._give_up(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._unread_bytes = 0
        super().on_message_begin()
        self._expect_head(self.seconds)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header or a trailer; one too many is answered by the parser's 400."""
        if len(self.headers) >= MAX_HEADERS:
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._unread_bytes = 0
        self._stop_head_timer()
        self.limit.works(self)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._unread_bytes = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """The answer is written, if not yet sent."""
        super().on_response_complete()
        self._watch_writing()
        if self.cycle.response_complete and not self.transport.is_closing():
            self.limit.waits(self)

    def pause_writing(self) -> None:
        """The client does not read as fast as we write."""
        super().pause_writing()
        self._watch_writing()

    def _expect_head(self, seconds: float) -> None:
        self._stop_head_timer()
        self._head_timer = self.loop.call_later(seconds, self._give_up, HTTPStatus.REQUEST_TIMEOUT)

    def _give_up(self, status: HTTPStatus) -> None:
        if self.cycle is None or self.cycle.response_complete:
            line = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(line.encode())
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


def options(settings: Settings) -> dict[str, Any]:
    """What uvicorn is told of connections: how many, how long they may stand still, and which proxies are believed."""
    limit = ConnectionLimit(connection_limit.within_files(settings.max_connections))
    return {
        "http": type("Connection", (Connection,), {"seconds": settings.slow_body_seconds, "limit": limit}),
        "ws": "none",
        "timeout_keep_alive": settings.keep_alive_seconds,
        "proxy_headers": True,
        "forwarded_allow_ips": settings.trusted_proxies,
    }
