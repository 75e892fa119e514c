"""A scripted ingress: a real HTTP server that speaks the ingresses' contract and does what a test tells it; no worker.

with ScriptedDoor(db, settings) as ingress:
    ingress.will("full")                # the next call is refused; then it answers again
    ingress.will("break-after 2", die=True)
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from aiohttp import web
from api.live import arrive

from penstock.domain.calls.ingress import Load
from penstock.domain.engines.profile import EngineProfile
from penstock.service.calls import ingresses
from penstock.service.core.transaction import Database
from penstock.settings import Settings

TOKEN = "the-ingresses-token-of-the-tests"
EVENTS = [b'data: {"object":"chat.completion.chunk","n": %d}\n\n' % n for n in range(5)] + [b"data: [DONE]\n\n"]
GOODBYE = b'data: {"error": {"message": "EngineCore died", "type": "t", "code": 500}}\n\ndata: [DONE]\n\n'
ANSWER = b'{"id": "chatcmpl-1",  "object":"chat.completion", "service_tier":null, "choices":[]}'


class ScriptedIngress:
    """One ingress, on a thread of its own, and its worker's row."""

    def __init__(
        self,
        db: Database,
        settings: Settings,
        model: str = "tiny",
        region: str = "",
        slots: int = 8,
        revision: str = "",
        engine: EngineProfile | None = None,
    ) -> None:
        self._engine = engine
        self._db = db
        self._settings = settings.model_copy(update={"region": region})
        self._model = model
        self._slots = slots
        self._revision = revision
        self._acts: deque[str] = deque()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._go_on = asyncio.Event()
        self.usual = "answer"
        """What it does with a call that nothing else was said about."""
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        """Every call that came: endpoint, headers, body."""
        self.left = 0
        """Callers that went away before their answer's end."""
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.whole = ANSWER
        self.status = 200
        self.url = ""
        self.worker = UUID(int=0)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._open())
        holder = arrive(self._db, self._settings, "gpu", self._model, self._engine)
        self.worker = holder.id
        self._holder = holder
        self.announce(self._revision)
        self.pulse()
        return self

    def announce(self, revision: str) -> None:
        """Say where calls may come, and what its engine is now."""
        self._db.run(ingresses.announce, self._holder, self.url, [self._model], self._slots, self._settings, revision)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def pulse(self, open: bool = True, calls: int = 0) -> None:
        """Say how loaded it is."""
        load = Load(open=open, calls=calls, lines=0, budget=self._slots, reason="scripted", tokens_per_second=0.0)
        self._db.run(ingresses.pulse, self._holder, load)

    def will(self, *acts: str) -> None:
        """Do this with the next calls, one after the other."""
        self._acts.extend(acts)

    def go_on(self) -> None:
        """End all waits."""
        self._loop.call_soon_threadsafe(self._go_on.set)

    def close(self) -> None:
        """Vanish: as a worker that is killed, all connections and the port at once."""
        self._run(self._vanish())

    def _run(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _open(self) -> None:
        server = web.Server(self._handle, handler_cancellation=True)
        self._runner = web.ServerRunner(server)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, shutdown_timeout=0.01)
        await site.start()
        self._connections = server
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]

    async def _vanish(self) -> None:
        for site in list(self._runner.sites):
            await site.stop()
        for connection in list(self._connections.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return web.Response(status=401)
        if request.method == "GET":
            outcome = self.outcomes.get(request.path.removeprefix("/calls/"))
            return web.json_response(outcome) if outcome else web.Response(status=404)
        body = await request.read()
        self.asked.append((request.path, dict(request.headers), body))
        act = self._acts.popleft() if self._acts else self.usual
        try:
            return await self._act(request, *act.split())
        except (asyncio.CancelledError, ConnectionError):
            self.left += 1
            raise

    async def _act(self, request: web.BaseRequest, act: str, *more: str) -> web.StreamResponse:
        mine = {"x-penstock-worker": str(self.worker), "x-penstock-queue-ms": "7"}
        if act == "wait":
            await self._go_on.wait()
            act, more = (more[0], more[1:]) if more else ("answer", ())
        if act == "answer":
            return web.Response(body=self.whole, status=self.status, content_type="application/json", headers=mine)
        if act == "break":
            self._note(request, more)
            return self._break(request)
        if act in ("stream", "pause-after", "break-after", "goodbye-after", "broken-whole"):
            return await self._stream(request, mine, act, more)
        refusal = {"x-penstock-refusal": act}
        if "suspects" in more:
            refusal["x-penstock-suspects"] = "1"
        if act == "limited":
            refusal["retry-after"] = more[0]
        return web.Response(status=503, headers=refusal)

    async def _stream(
        self, request: web.BaseRequest, mine: dict[str, str], act: str, more: tuple[str, ...]
    ) -> web.StreamResponse:
        kind = "application/json" if act == "broken-whole" else "text/event-stream; charset=utf-8"
        response = web.StreamResponse(headers={**mine, "content-type": kind})
        await response.prepare(request)
        if act == "broken-whole":
            await response.write(b"{" + b" " * 400_000)
            self._note(request, more)
            return self._break(request)
        for index, event in enumerate(EVENTS):
            if act != "stream" and index == int(more[0]):
                if act == "break-after":
                    await response.write(event[:7])  # the beginning of an event that never ends
                    self._note(request, more[1:])
                    return self._break(request)
                if act == "goodbye-after":
                    self._note(request, more[1:])
                    await response.write(GOODBYE)
                    break
                await self._go_on.wait()
            await response.write(event)
        await response.write_eof()
        return response

    def _note(self, request: web.BaseRequest, outcome: tuple[str, ...]) -> None:
        if outcome:
            call = request.headers["x-penstock-call"]
            self.outcomes[call] = {"outcome": outcome[0], "suspects": "suspects" in outcome}

    def _break(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        raise asyncio.CancelledError


def serves(look: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until this is so."""
    from e2e.live import until

    until(look, "what the test waits for", seconds)


def said(raw: bytes) -> list[Any]:
    """The events of a stream, decoded; `[DONE]` as it is."""
    found = [one.removeprefix(b"data: ") for one in raw.split(b"\n\n") if one]
    return [one.decode() if one == b"[DONE]" else json.loads(one) for one in found]
