"""The relay: whatever comes on the worker's socket goes to the engine's address, with its key, and back as it comes.

    python -m penstock_worker.engine.remote.relay --uds SOCK --url http://host:8000     (the key: ENGINE_KEY)

A connection that breaks off there breaks off here. If the engine is gone then, so is the relay: to its supervisor it is
the engine, which started again is ready once the engine answers, and lines wait for that. An engine without /health is
healthy while it lists its models.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import uvloop
from aiohttp import web

_MOST_BODY_BYTES: Final = 64 * 1024 * 1024
_CONNECT_SECONDS: Final = 10.0
_PROBE_SECONDS: Final = 4.0
_PASSED_ON: Final = ("content-type", "accept", "x-request-id")
_OURS: Final = frozenset({"connection", "date", "keep-alive", "server", "set-cookie", "trailer", "transfer-encoding"})
"""Headers of an answer that belong to one connection, or to nobody here."""


class Relay:
    """One engine's address, and the connections to it."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session
        self.gone = asyncio.Event()
        """The engine can't be reached any more."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Pass one request on, and its answer back."""
        if request.path == "/health":
            return web.Response(status=200 if await self._healthy() else 503)
        body = await request.read()
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        response = None
        try:
            asked = self._session.request(
                request.method, self._url + request.path_qs, data=body or None, headers=headers, allow_redirects=False
            )
            async with asked as answer:
                response = web.StreamResponse(status=answer.status, headers=_theirs(answer.headers))
                await response.prepare(request)
                async for piece in answer.content.iter_any():
                    await response.write(piece)
                await response.write_eof()
        except (aiohttp.ClientError, TimeoutError, OSError):
            if not await self._healthy():
                self.gone.set()
            if request.transport:
                request.transport.abort()
        return response or web.Response(status=502)

    async def _healthy(self) -> bool:
        status = await self._status("/health")
        if status in (401, 403, 404, 405, 501):  # it has none
            status = await self._status("/v1/models")
        return status == 200

    async def _status(self, path: str) -> int:
        timeout = aiohttp.ClientTimeout(total=_PROBE_SECONDS / 2)
        try:
            async with self._session.get(self._url + path, timeout=timeout, allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0


def _theirs(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _OURS}


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_MOST_BODY_BYTES)


async def serve(uds: str, url: str, key: str | None) -> None:
    """Listen until the engine is gone, or SIGTERM comes."""
    # How long an answer may take is the worker's affair: it closes its connection, and that cancels the handler.
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        headers={"authorization": f"Bearer {key}"} if key else None,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept-Encoding"),
        auto_decompress=False,
    ) as session:
        relay = Relay(url, session)
        server = web.Server(
            relay.handle,
            request_factory=_request,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=600.0,
        )
        runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await runner.setup()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(uds)
        await web.UnixSite(runner, uds, backlog=4096).start()
        print(f"relay: {uds} leads to {url}", flush=True)
        ended = asyncio.create_task(relay.gone.wait())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await ended
        await runner.cleanup()
        if relay.gone.is_set():
            sys.exit(f"error: the engine at {url} can't be reached any more")


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(
        prog="penstock_worker.engine.remote.relay", description="A way to an engine that runs already."
    )
    parser.add_argument("--uds", required=True)
    parser.add_argument("--url", required=True)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(given.uds, given.url, os.environ.get("ENGINE_KEY")))


if __name__ == "__main__":
    main()
