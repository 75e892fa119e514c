"""The relay: whatever comes on the worker's socket goes to the engine's address, with its key, and back as it comes.

    python -m penstock_worker.engine.remote.relay --uds SOCK --url http://host:8000 --model NAME --engine remote
                                                  [--key-file PATH] [--ca-file PATH]     (a key: ENGINE_KEY)

It begins to listen once the engine works, takes our key and has our model; else it ends, and its last line says why,
with the status 78 (sysexits' EX_CONFIG) if another start would end alike. A connection that breaks off there breaks off
here. If the engine is gone then, so is the relay: to its supervisor it is the engine, which started again is ready once
the engine answers, and lines wait for that. While it refuses our key requests are told to wait, and /health is bad: a
key that is mended in its file in that minute costs nobody anything.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import ssl
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import uvloop
from aiohttp import web

from penstock.domain.engines.profiles import PROFILES
from penstock_worker.engine.launch_spec import FINAL_STATUS
from penstock_worker.engine.remote.engine_key import EngineKey, NoKey
from penstock_worker.engine.remote.far_engine import MODELS, EngineAway, FarEngine, NoFarEngine

_MOST_BODY_BYTES: Final = 64 * 1024 * 1024
_CONNECT_SECONDS: Final = 10.0
_AWAIT_SECONDS: Final = 1.0
"""So long an engine that is away is waited for before that is said; the supervisor starts the relay again."""
_LOOK_SECONDS: Final = 0.25
_PASSED_ON: Final = ("content-type", "accept", "x-request-id")
_OURS: Final = frozenset({"connection", "date", "keep-alive", "server", "set-cookie", "trailer", "transfer-encoding"})
"""Headers of an answer that belong to one connection, or to nobody here."""
_KEY_AGAIN_SECONDS: Final = "5"


class Relay:
    """What comes here for one engine elsewhere."""

    def __init__(self, engine: FarEngine) -> None:
        self._engine = engine
        self.gone = asyncio.Event()
        """The engine can't be reached any more."""
        self._said = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Pass one request on, and its answer back."""
        if request.path == "/health":
            return web.Response(status=200 if await self._is_well() else 503)
        if request.path == MODELS:
            return _json({"object": "list", "data": [{"object": "model", "id": one} for one in self._engine.names]})
        body = await request.read()
        response = None
        try:
            headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
            asked = self._engine.session.request(
                request.method,
                self._engine.url + request.path_qs,
                data=body or None,
                headers=headers | self._engine.key.header(),
                allow_redirects=False,
            )
            async with asked as answer:
                if refusal := await self._no_answer(answer):
                    return refusal
                response = web.StreamResponse(status=answer.status, headers=_theirs(answer.headers))
                await response.prepare(request)
                async for piece in answer.content.iter_any():
                    await response.write(piece)
                await response.write_eof()
        except NoKey as error:
            return _busy(self._say(str(error)))
        except (aiohttp.ClientError, TimeoutError, OSError):
            if not await self._is_well():
                self.gone.set()
            if request.transport:
                request.transport.abort()
        return response or web.Response(status=502)

    async def _no_answer(self, answer: aiohttp.ClientResponse) -> web.Response | None:
        """What is said in the place of an answer that is none of an engine's; None if it is one."""
        if answer.status == 401:  # not the request's fault
            return _busy(self._say(f"the engine at {self._engine.url} does not take our key any more"))
        if answer.status < 300 and answer.content_type == "text/html":
            return _json(_error(f"What answers at {self._engine.url} sent a web page in the place of an answer."), 502)
        return None

    async def _is_well(self) -> bool:
        try:
            return await self._engine.is_well()
        except NoFarEngine as error:
            self._say(str(error))
            return False

    def _say(self, why: str) -> str:
        """Into the log, once."""
        if why != self._said:
            self._said = why
            print(f"relay: {why}", flush=True)
        return why


def _json(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json", headers=headers)


def _busy(why: str) -> web.Response:
    return _json(_error(f"Not now: {why}."), 503, {"retry-after": _KEY_AGAIN_SECONDS})


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "server_error", "param": None, "code": None}}


def _theirs(headers: Mapping[str, str]) -> dict[str, str]:
    """Those that are passed on: what a header may not hold here fails the whole answer."""
    return {name: value for name, value in headers.items() if name.lower() not in _OURS and value.isprintable()}


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_MOST_BODY_BYTES)


async def _works(engine: FarEngine) -> None:
    """Wait a little for an engine that is away. Raises EngineAway and NoFarEngine."""
    until = time.monotonic() + _AWAIT_SECONDS
    while True:
        try:
            return await engine.look()
        except EngineAway:
            if time.monotonic() > until:
                raise
        await asyncio.sleep(_LOOK_SECONDS)


async def serve(options: argparse.Namespace, key: EngineKey) -> None:
    """Listen until the engine is gone, or SIGTERM comes."""
    tls = ssl.create_default_context(cafile=options.ca_file) if options.ca_file else True
    # How long an answer may take is the worker's affair: it closes its connection, and that cancels the handler.
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=tls),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept-Encoding"),
        auto_decompress=False,
    ) as session:
        engine = FarEngine(options.url, options.model, PROFILES[options.engine], key, session)
        try:
            await _works(engine)
        except EngineAway as error:
            sys.exit(f"error: {error}")
        except NoFarEngine as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            sys.exit(FINAL_STATUS)
        relay = Relay(engine)
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
            os.unlink(options.uds)
        await web.UnixSite(runner, options.uds, backlog=4096).start()
        print(f"relay: {options.uds} leads to {options.url}", flush=True)
        ended = asyncio.create_task(relay.gone.wait())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await ended
        await runner.cleanup()
        if relay.gone.is_set():
            sys.exit(f"error: the engine at {options.url} can't be reached any more")


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(
        prog="penstock_worker.engine.remote.relay", description="A way to an engine that runs already."
    )
    parser.add_argument("--uds", required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--engine", default="remote", choices=tuple(PROFILES))
    parser.add_argument("--key-file", type=Path)
    parser.add_argument("--ca-file", type=Path)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(given, EngineKey(os.environ.get("ENGINE_KEY"), given.key_file)))


if __name__ == "__main__":
    main()
