"""Outbound: whatever is sent to where a tenant says goes through here, and reaches no address that it may not.

A name is resolved once, every address that it has must be open (`domain/address.py`), and the connection goes to those
very addresses, with the name in the Host header and checked against the certificate: a name server that changes its
answer meanwhile changes nothing. No redirects are followed, no proxies and no netrc are read, nothing is decompressed,
and no connection is used twice. Of an answer at most the wanted bytes are read; all of it has one total timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from penstock.domain import address
from penstock.domain.address import Address, Network, Reach, Target
from penstock.domain.api_errors import OutboundFailed, OutboundRefused
from penstock.domain.single_flight import SingleFlight

Resolve = Callable[[str, int], Coroutine[Any, Any, Sequence[str]]]
"""All addresses of a host, as text; raises OSError."""

_LOOKUPS: Final = 32
_VET_SECONDS: Final = 5.0
_MOST_HEADERS: Final = 64
_MOST_HEADER_BYTES: Final = 8_190


@dataclass(frozen=True, slots=True)
class Reply:
    """A receiver's answer: the first bytes of its body as they came, and the time that it all took."""

    status: int
    headers: Mapping[str, str]
    """Names in small letters; of a name that comes twice the first."""
    start: bytes
    seconds: float


class Outbound:
    """The one way out to addresses of tenants; used with `async with`, on one event loop."""

    def __init__(
        self,
        allow: Sequence[Network] = (),
        *,
        ports: Collection[int] = (443, 80),
        plain_http: bool = False,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._reach = Reach(tuple(allow), frozenset(ports), plain_http)
        self._tls = tls or ssl.create_default_context()
        # Lookups have threads of their own: a name server that says nothing must not stop the process's other work.
        self._threads = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="outbound-lookup") if resolve is None else None
        self._resolve = resolve or self._lookup
        self._lookups: SingleFlight[tuple[str, int], Sequence[str]] = SingleFlight()
        """A thousand events for a name that hangs must not take all threads."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._threads:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def check(self, url: str) -> None:
        """Raise OutboundRefused if the URL itself says that nothing may be sent there; asks no name server."""
        self._reach.check(address.read(url))

    async def vet(self, url: str) -> None:
        """Raise OutboundRefused if nothing may be sent there, by what its name resolves to now."""
        target = address.read(url)
        try:
            async with asyncio.timeout(_VET_SECONDS):
                await self._addresses(target)
        except OutboundFailed as error:
            raise OutboundRefused(error.reason) from None
        except TimeoutError:
            raise OutboundRefused(f"{target.host} could not be resolved in time.") from None

    async def post(
        self, url: str, *, headers: Mapping[str, str], body: bytes, timeout_seconds: float, most_bytes: int
    ) -> Reply:
        """Send once. Raises OutboundRefused if it may not be sent, OutboundFailed if no answer's head came back.

        Once the head is there the answer counts: if its body is not whole in time, the reply has what came of it.
        """
        began = time.monotonic()
        target = address.read(url)
        outside = False
        until = asyncio.get_running_loop().time() + timeout_seconds
        try:
            async with asyncio.timeout_at(until):
                addresses = await self._addresses(target)
            outside = all(address.is_global(one) for one in addresses)
            async with self._session(addresses) as session:
                async with asyncio.timeout_at(until):
                    where = URL(url, encoded=True)
                    response = await session.post(where, headers=headers, data=body, allow_redirects=False)
                start = await _start(response, most_bytes, until)
        except TimeoutError:
            raise _failed("timeout: no answer in time", outside) from None
        except aiohttp.ClientError as error:
            raise _failed(_reason(error), outside) from error
        except OSError as error:
            raise _failed(f"connection: {error.strerror or type(error).__name__}", outside) from error
        told: dict[str, str] = {}
        for name, value in response.headers.items():
            told.setdefault(name.lower(), value)
        return Reply(response.status, told, start, time.monotonic() - began)

    def _session(self, addresses: Sequence[Address]) -> aiohttp.ClientSession:
        """A session that can reach these addresses only."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_Pinned(addresses),
                socket_factory=_only(addresses),
                use_dns_cache=False,
                ssl=self._tls,
                force_close=True,
                limit=1,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"accept-encoding": "identity", "user-agent": "Penstock"},
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=16 * 1_024,
            max_line_size=_MOST_HEADER_BYTES,
            max_field_size=_MOST_HEADER_BYTES,
            max_headers=_MOST_HEADERS,
        )

    async def _addresses(self, target: Target) -> Sequence[Address]:
        """Where the target is, all of it open. Raises OutboundRefused, and OutboundFailed if its name says nothing."""
        self._reach.check(target)
        if target.address is not None:
            return [target.address]
        try:
            where = target.host, target.port
            texts = await self._lookups.ask(where, lambda: self._resolve(*where))
            found = [ipaddress.ip_address(text) for text in dict.fromkeys(texts)]
        except (OSError, ValueError):
            found = []
        if not found:
            raise OutboundFailed(f"{target.host} could not be resolved.")
        self._reach.admit(target, found)
        return found

    async def _lookup(self, host: str, port: int) -> Sequence[str]:
        def ask() -> Sequence[str]:
            return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]

        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)


async def _start(response: aiohttp.ClientResponse, most_bytes: int, until: float) -> bytes:
    """What comes of the body in time, and no more than wanted; then the connection is closed."""
    start = bytearray()
    try:
        # TimeoutError is an OSError.
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with asyncio.timeout_at(until):
                while len(start) < most_bytes and (piece := await response.content.read(most_bytes - len(start))):
                    start += piece
    finally:
        response.close()
    return bytes(start)


class _Pinned(AbstractResolver):
    """Answers with addresses that were vetted, whatever it is asked."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(found),
                port=port,
                family=socket.AF_INET if found.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found in self._addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""


def _only(addresses: Sequence[Address]) -> Callable[[tuple[Any, ...]], socket.socket]:
    """Make no socket for any other address: what the HTTP library reads out of the URL decides nothing."""

    def made(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, where = info
        if ipaddress.ip_address(where[0]) not in addresses:
            raise OutboundRefused(f"{where[0]} was not vetted.")
        return socket.socket(family, kind, protocol)

    return made


def _failed(reason: str, outside: bool) -> OutboundFailed:
    """Of a public receiver its tenant may know what went wrong; within the operator's networks nobody scans ports."""
    return OutboundFailed(reason, told=reason if outside else None)


def _reason(error: aiohttp.ClientError) -> str:
    """What went wrong, without the addresses and the inner words of libraries."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"certificate: {getattr(error.certificate_error, 'verify_message', '') or 'not valid'}"
        case aiohttp.ClientConnectorSSLError():
            return "tls: the handshake failed"
        case aiohttp.ClientConnectorError():
            return f"connection: {error.os_error.strerror or 'not reached'}"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return "connection: it broke before the answer"
        case _:
            return "answer: it is no HTTP that can be read"
