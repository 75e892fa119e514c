"""Ingresses over HTTP: calls are offered to workers, and their answers come back as bytes as they come.

IngressUnreachable   the call certainly never got there
IngressLost          the connection broke before the answer's end: the call may have run
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import aiohttp
import msgspec

_CONNECT_SECONDS: Final = 1.0
_OUTCOME_SECONDS: Final = 2.0
_IDLE_SECONDS: Final = 15.0
"""Connections that nobody uses are closed by this side first: a request on one that the ingress closes at that very
moment would look like a worker's death."""
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

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status: int = response.status
        self.headers: Mapping[str, str] = response.headers

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
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise IngressLost(repr(error)) from error

    def close(self) -> None:
        """Let go; an answer that is not at its end loses its connection, and so the ingress hears of it."""
        self._response.close()


class IngressClient:
    """A pool of connections to all ingresses, on one event loop; used with `async with`. It has no limit of its own."""

    def __init__(self, token: str, ca: Path | None = None) -> None:
        self._token = token
        self._tls = ssl.create_default_context(cafile=ca) if ca else None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=_IDLE_SECONDS,
                ssl=self._tls or True,
                socket_factory=_socket,
                enable_cleanup_closed=False,
            ),
            headers={"authorization": f"Bearer {self._token}"},
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept"),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            max_line_size=8_190,
            max_field_size=8_190,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session:
            await self._session.close()

    async def offer(self, url: str, endpoint: str, body: bytes, headers: Mapping[str, str]) -> IngressReply:
        """Send a call, and return with the head of its answer. Raises IngressUnreachable and IngressLost."""
        told = {"content-type": "application/json", **headers}
        return IngressReply(await self._request("POST", url + endpoint, headers=told, data=body))

    async def outcome(self, url: str, call_id: str) -> ReportedOutcome:
        """Ask an ingress what became of a call. Raises IngressUnreachable and IngressLost."""
        try:
            async with asyncio.timeout(_OUTCOME_SECONDS):
                response = await self._request("GET", f"{url}/calls/{call_id}")
                async with response:
                    raw = await response.read()
        except TimeoutError:
            raise IngressLost("it says nothing") from None
        except (aiohttp.ClientError, OSError) as error:
            raise IngressLost(repr(error)) from error
        if response.status == 404:
            return ReportedOutcome("unknown", False)
        try:
            return msgspec.json.decode(raw, type=ReportedOutcome)
        except msgspec.DecodeError:
            raise IngressLost(f"its answer is not understood: status {response.status}") from None

    async def _request(self, method: str, url: str, **more: Any) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("the ingress client is used with `async with`")
        try:
            return await self._session.request(method, url, allow_redirects=False, **more)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise IngressUnreachable(repr(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise IngressLost(repr(error)) from error


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket that notices a peer that vanished, whether something was sent to it or not."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _VANISHED_SECONDS - 6),
        ("TCP_KEEPINTVL", 2),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", _VANISHED_SECONDS * 1_000),
    ):
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made
