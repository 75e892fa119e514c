"""Ingresses over HTTP: calls are offered to workers, and their answers come back as bytes as they come.

IngressUnreachable   the call certainly never got there
IngressLost          the connection broke before the answer's end: the call may have run
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self
from urllib.parse import urlsplit

import msgspec
from cachetools import LRUCache

from penstock.wire.http_connections import Connect, Exchange, HttpConnections, NotConnected

_CONNECT_SECONDS: Final = 1.0
_OUTCOME_SECONDS: Final = 2.0
_IDLE_SECONDS: Final = 15.0
"""Connections that nobody uses are closed by this side first: a request on one that the ingress closes at that very
moment would look like a worker's death."""
_MOST_INGRESSES: Final = 1_000
_PORTS: Final = {"http": 80, "https": 443}
_VANISHED_SECONDS: Final = 15
"""A machine that acknowledges nothing for so long is gone: a quiet stream must not wait for it forever."""


class IngressUnreachable(Exception):
    """The ingress could not be reached."""


class IngressLost(Exception):
    """The connection to the ingress broke."""


Fate = Literal["engine-died", "unanswered", "answered", "left", "unknown"]


@dataclass(frozen=True, slots=True)
class ReportedOutcome:
    """What became of a call, as its ingress says; `unknown` if it never came in there."""

    outcome: Fate
    suspects: bool


class IngressReply:
    """An ingress's answer, whose body is read piece by piece. Whoever got one closes it."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.status: int = exchange.status
        self.headers: Mapping[str, str] = exchange.headers
        """Names in lower case."""

    @property
    def refusal(self) -> str | None:
        """Why the ingress itself refused the call; None if the engine answered."""
        return self.headers.get("x-penstock-refusal")

    @property
    def suspects(self) -> bool:
        """Whether batch lines under suspicion were in the engine when it died."""
        return self.headers.get("x-penstock-suspects") == "1"

    @property
    def content_type(self) -> str:
        """As the engine said it."""
        return self.headers.get("content-type", "application/json")

    async def piece(self) -> bytes:
        """The next bytes, as soon as there are any; empty at the end. Raises IngressLost."""
        try:
            return await self._exchange.read()
        except OSError as error:
            raise IngressLost(repr(error)) from error

    def close(self) -> None:
        """Let go; an answer that is not at its end loses its connection, and so the ingress hears of it."""
        self._exchange.close()


class IngressClient:
    """Connections to all ingresses, on one event loop; used with `async with`. It has no limit of its own."""

    def __init__(self, token: str, ca: Path | None = None) -> None:
        self._headers = {"authorization": f"Bearer {token}"}
        self._tls = ssl.create_default_context(cafile=ca)
        self._known: LRUCache[str, tuple[HttpConnections, str]] = LRUCache(_MOST_INGRESSES)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connections, _ in self._known.values():
            connections.close()

    async def offer(self, url: str, endpoint: str, body: bytes, headers: Mapping[str, str]) -> IngressReply:
        """Send a call, and return with the head of its answer. Raises IngressUnreachable and IngressLost."""
        told = {"content-type": "application/json", **headers}
        return IngressReply(await self._ask("POST", url, endpoint, body, told, None))

    async def outcome(self, url: str, call_id: str) -> ReportedOutcome:
        """Ask an ingress what became of a call. Raises IngressUnreachable and IngressLost."""
        reply = IngressReply(await self._ask("GET", url, f"/calls/{call_id}", b"", {}, _OUTCOME_SECONDS))
        try:
            raw = b""
            while piece := await reply.piece():
                raw += piece
        finally:
            reply.close()
        if reply.status == 404:
            return ReportedOutcome("unknown", False)
        try:
            return msgspec.json.decode(raw, type=ReportedOutcome)
        except msgspec.DecodeError:
            raise IngressLost(f"its answer is not understood: status {reply.status}") from None

    async def _ask(
        self, method: str, url: str, path: str, body: bytes, headers: Mapping[str, str], seconds: float | None
    ) -> Exchange:
        known = self._known.get(url)
        if known is None:
            known = self._known[url] = _connections(url, self._tls)
        connections, prefix = known
        try:
            return await connections.ask(method, prefix + path, body, {**self._headers, **headers}, seconds)
        except NotConnected as error:
            raise IngressUnreachable(repr(error)) from error
        except OSError as error:
            raise IngressLost(repr(error)) from error


def _connections(url: str, tls: ssl.SSLContext) -> tuple[HttpConnections, str]:
    """Those to an ingress, and what its paths begin with. Raises IngressUnreachable for what is no address."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS[parts.scheme]
        if not host:
            raise ValueError("no host")
        host.encode("idna")  # as it is looked up
    except (ValueError, KeyError) as error:
        raise IngressUnreachable(f"{url!r} is no ingress's address") from error
    connect = _connect(host, port, tls if parts.scheme == "https" else None)
    return HttpConnections(connect, parts.netloc.rpartition("@")[2], _IDLE_SECONDS), parts.path.rstrip("/")


def _connect(host: str, port: int, tls: ssl.SSLContext | None) -> Connect:
    async def connect(protocol: Callable[[], asyncio.Protocol]) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                transport, _ = await loop.create_connection(protocol, host, port, ssl=tls)
        except TimeoutError as error:
            raise NotConnected("it does not answer") from error
        _notice_whoever_vanished(transport.get_extra_info("socket"))

    return connect


def _notice_whoever_vanished(connected: socket.socket) -> None:
    """Whether something was sent to it or not."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _VANISHED_SECONDS - 6),
        ("TCP_KEEPINTVL", 2),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", _VANISHED_SECONDS * 1_000),
    ):
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
