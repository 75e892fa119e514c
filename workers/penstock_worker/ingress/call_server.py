"""The call server: waiting calls come in here over HTTP, from the router alone, and their answers leave as they come.

    authorise → refuse, if this is no time to come in → wait at the gate → ask the engine → pass its bytes on

It lives on the worker's one asyncio loop. What a call costs is given back on every way out, and nothing is kept of an
answer: a reader who is slow makes the engine's connection wait. Until the engine's first byte the ingress can refuse,
and says why (`call.Refusal`); after it a broken answer ends by breaking the router's connection, and its outcome is
told to whoever asks for it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog
from aiohttp import web

from penstock.domain.adapter import AdapterFault
from penstock.domain.inference_endpoints import CALLED
from penstock.domain.limits.equal_share import may_take
from penstock.formats.answers import engine_error
from penstock.formats.engine_body import with_model, with_priority, without_salt
from penstock.settings.ingress import IngressSettings
from penstock_worker.admission.gate import Ticket
from penstock_worker.engine import metrics as engine_metrics
from penstock_worker.engine.adapters.adapter_residency import AdapterResidency, Resident
from penstock_worker.engine.client import EngineGone, EngineTimeout
from penstock_worker.engine.process.supervisor import EngineState
from penstock_worker.engine_context import EngineContext
from penstock_worker.ingress.call import Call, Refusal, Refused, refuse
from penstock_worker.ingress.call_outcomes import CallOutcomes
from penstock_worker.ingress.call_packs import CallPacks
from penstock_worker.ingress.ingress_metrics import IngressMetrics
from penstock_worker.ingress.response_relay import ResponseRelay

log = structlog.get_logger()

_LOOK_SECONDS: Final = 0.1
_KEEPALIVE_SECONDS: Final = 60.0  # the router's own is shorter: it never meets an ingress that closes at that moment
_BACKLOG: Final = 4_096
_ENGINE_PAGE_SECONDS: Final = 2.0
_VANISHED_SECONDS: Final = 15
"""A router's machine that acknowledges no probe for so long is gone, and so are its calls that wait for tokens. What
fills the buffers of one that is gone is stopped by `slow_body_seconds`."""


class CallServer:
    """One worker's ingress, from `opened` to its end. `changed` is called (on the loop) when it opens or shuts."""

    def __init__(
        self, engine: EngineContext, worker: UUID, metrics: IngressMetrics, changed: Callable[[], None]
    ) -> None:
        settings = engine.settings
        assert settings.ingress_secret, "without a token there is no ingress"
        self._engine = engine
        self._settings = settings
        self._worker = {"x-penstock-worker": str(worker)}
        self._name = str(worker)[:8]
        self._secret = settings.ingress_secret
        self._metrics = metrics
        self._packs = CallPacks(engine, metrics)
        self._changed = changed
        self._inside: dict[Call, None] = {}
        self._by_tenant: Counter[str] = Counter()
        self._draining = self._drained = self._restarting = False
        self._cutting: asyncio.TimerHandle | None = None
        self.outcomes = CallOutcomes(
            max(1_000, 2 * settings.ingress_calls)
        )  # all who are inside may lose their engine at once
        self.url = ""

    # What others may know, from any thread.

    @property
    def is_open(self) -> bool:
        """Whether a new call may come in."""
        return not self._drained and self._why_shut(last_resort=False) is None

    @property
    def calls(self) -> int:
        """Calls inside: in the engine or in line for it."""
        return len(self._inside)

    @property
    def holds(self) -> bool:
        """Whether any call is inside."""
        return bool(self._inside)

    def drain(self) -> None:
        """The worker ends: nobody comes in, who has not been sent goes elsewhere, the others have their grace."""
        if not self._draining:
            self._draining = True
            self._engine.loop.loop.call_soon_threadsafe(self._turn_out)

    def rest(self, drained: bool) -> None:
        """An operator's order: nobody comes in, and those inside stay to their ends; or all may come again."""
        self._drained = drained

    def restart(self, begins: bool) -> None:
        """The engine is about to be restarted: as when the worker ends, until that is over."""
        self._restarting = begins
        self._engine.loop.loop.call_soon_threadsafe(self._turn_out if begins else self._spare)

    def _why_shut(self, last_resort: bool) -> Refusal | None:
        if self._draining or self._restarting:
            return Refusal.DRAINING
        if self._engine.supervisor.state is not EngineState.READY:
            return Refusal.NOT_READY
        if self._engine.gate.trying and not last_resort:
            return Refusal.CLOSED
        return None

    # Its life.

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[CallServer]:
        """Listen."""
        server = web.Server(
            self._handle,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=_KEEPALIVE_SECONDS,
            auto_decompress=False,
        )
        runner = web.ServerRunner(server, shutdown_timeout=0.5)
        await runner.setup()
        settings = self._settings
        tls = None
        if settings.ingress_cert is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(settings.ingress_cert, settings.ingress_key)
        listening = _listening(settings.ingress_host, settings.ingress_port)
        await web.SockSite(runner, listening, ssl_context=tls, backlog=_BACKLOG).start()
        self.url = settings.ingress_url or _url(settings, listening.getsockname()[1], tls is not None)
        looking = asyncio.create_task(self._look())
        log.info("ingress_listens", url=self.url)
        try:
            yield self
        finally:
            looking.cancel()
            await runner.cleanup()

    async def _look(self) -> None:
        """See that the ingress opens or shuts; those at the gate needn't wait behind one that is shut."""
        was_open = None
        while True:
            if self.is_open is not was_open:
                was_open = self.is_open
                self._changed()
            if not was_open:
                for call in self._inside:
                    if why := self._why_shut(call.last_resort):
                        call.turn_away(why)
            await asyncio.sleep(_LOOK_SECONDS)

    def _turn_out(self) -> None:
        for call in self._inside:
            call.turn_away(Refusal.DRAINING)
        grace_seconds = self._settings.ingress_grace_seconds
        self._cutting = self._cutting or asyncio.get_running_loop().call_later(grace_seconds, self._cut)

    def _spare(self) -> None:
        """Those who come in from now on are not cut, unless the worker ends, too."""
        if self._cutting and not self._draining:
            self._cutting.cancel()
            self._cutting = None

    def _cut(self) -> None:
        """The grace is over."""
        for call in self._inside:
            call.cut = True
            if call.task:
                call.task.cancel()

    # Requests.

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if not self._may_ask(request):
            return web.Response(status=401, headers={"connection": "close"})
        if request.method == "GET":
            return await self._tell(request.path)
        if request.method != "POST" or request.path not in CALLED:
            return web.Response(status=404)
        try:
            call = Call.of(request.path, request.headers)
        except ValueError as error:
            return web.Response(status=400, text=str(error))
        try:
            return await self._let_in(request, call)
        except Refused as refused:
            self._metrics.refused(refused.refusal)
            return refuse(refused)

    def _may_ask(self, request: web.BaseRequest) -> bool:
        """A router may ask all; who scrapes shows the metrics token, which opens nothing else."""
        given = request.headers.get("authorization", "").encode(errors="surrogateescape")
        if not given.startswith(b"Bearer "):
            return False
        token = given.removeprefix(b"Bearer ")
        scrapes = request.method == "GET" and request.path == "/metrics"
        return self._secret.accepts(token) or (scrapes and self._settings.metrics_secret.accepts(token))

    async def _tell(self, path: str) -> web.Response:
        if path == "/health":
            return _json({"open": self.is_open})
        if path == "/metrics":
            page = self._metrics.page(self.calls, await self._engine_page())
            return web.Response(body=page, headers={"content-type": self._metrics.TYPE})
        if path.startswith("/calls/") and (ended := self.outcomes.find(path.removeprefix("/calls/"))):
            return _json({"outcome": ended.outcome, "suspects": ended.suspects})
        return web.Response(status=404)

    async def _engine_page(self) -> str | None:
        """The engine's own metrics with this worker's label; None if it gives none just now."""
        load = self._engine.supervisor.launch.profile.load
        if load is None or self._engine.supervisor.state is not EngineState.READY:
            return None
        try:
            page = await self._engine.client.metrics(load.path, _ENGINE_PAGE_SECONDS)
        except (EngineGone, EngineTimeout):
            return None
        return engine_metrics.passed_on(page, self._name) or None

    async def _let_in(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        """One call's stay, from its admission at the ingress to its end. Raises Refused."""
        if why := Refusal.DRAINING if self._drained else self._why_shut(call.last_resort):
            raise Refused(why)
        if self.calls >= self._settings.ingress_calls:
            raise Refused(Refusal.FULL)
        if not may_take(call.tenant, self._by_tenant, self.calls, self._settings.ingress_calls):
            raise Refused(Refusal.SHARE)
        if wait := self._engine.backpressure.call_wait_seconds:
            raise Refused(Refusal.LIMITED, retry_after_seconds=wait)
        call.task = asyncio.current_task()
        self._inside[call] = None
        self._by_tenant[call.tenant] += 1
        try:
            body = await self._body(request)
            profile = self._engine.supervisor.launch.profile
            priority = profile.told_priority(call.rank.priority())
            if priority is not None or not profile.cache_salt:
                try:
                    body = body if profile.cache_salt else without_salt(body)
                    body = body if priority is None else with_priority(body, priority)
                except ValueError as error:
                    return web.Response(status=400, text=str(error))
            if call.adapter is not None:
                return await self._with_adapter(request, call, body, call.adapter)
            ticket, _ = await self._admitted(call)
            return await self._relayed(request, call, body, ticket)
        except asyncio.CancelledError:
            # By the connection's end, or by `_cut` before the engine was asked.
            if not call.cut or call.task is None:
                raise
            call.task.uncancel()
            raise Refused(Refusal.DRAINING) from None
        finally:
            del self._inside[call]
            self._by_tenant[call.tenant] -= 1
            if not self._by_tenant[call.tenant]:
                del self._by_tenant[call.tenant]

    async def _relayed(self, request: web.BaseRequest, call: Call, body: bytes, ticket: Ticket) -> web.StreamResponse:
        relay = ResponseRelay(self._engine, self._packs, call, self.outcomes, self._metrics, ticket)
        return await relay.through(request, body, self._worker)

    async def _with_adapter(self, request: web.BaseRequest, call: Call, body: bytes, wanted: str) -> web.StreamResponse:
        """A call that asks an adapter, which stays in the engine meanwhile. Raises Refused."""
        adapters = self._engine.adapters
        try:
            if adapters is None:
                raise AdapterFault("This worker loads no adapters.")
            with adapters.wanted(wanted):
                ticket, inside = await self._admitted(call, adapters)
        except AdapterFault as fault:
            log.warning("adapter_unusable", adapter=wanted, why=str(fault))
            error = engine_error.error_body(str(fault), "server_error", "adapter_unusable")
            return web.Response(status=503, body=error, content_type="application/json", headers=self._worker)
        except EngineGone:
            raise Refused(Refusal.NOT_READY) from None
        assert inside is not None, "it was admitted with its adapter"
        try:
            named = with_model(body, inside.name)
        except ValueError as error:
            self._engine.gate.release(ticket)
            return web.Response(status=400, text=str(error))
        else:
            return await self._relayed(request, call, named, ticket)
        finally:
            adapters.leave(inside)

    async def _body(self, request: web.BaseRequest) -> bytes:
        """A request's body, if it is not too long and does not take too long."""
        most = self._settings.max_json_bytes
        pieces, size = [], 0
        try:
            async with asyncio.timeout(self._settings.slow_body_seconds):
                while piece := await request.content.readany():
                    pieces.append(piece)
                    size += len(piece)
                    if size > most:
                        raise web.HTTPRequestEntityTooLarge(most, size, headers={"connection": "close"})
        except TimeoutError:
            raise web.HTTPRequestTimeout(headers={"connection": "close"}) from None
        return b"".join(pieces)

    async def _admitted(self, call: Call, adapters: AdapterResidency | None = None) -> tuple[Ticket, Resident | None]:
        """Wait for a slot, and for the adapter that it asks. Raises Refused, AdapterFault and EngineGone."""
        inside = None
        ticket, came = Ticket(call.rank, call.tenant, sequences=call.sequences), time.monotonic()
        try:
            async with asyncio.timeout(self._settings.call_wait_seconds) as call.waiting:
                while True:
                    if adapters is not None and call.adapter is not None:
                        await adapters.ready(call.adapter)
                    await self._engine.gate.admit(ticket)
                    if adapters is None or call.adapter is None or (inside := adapters.enter(call.adapter)):
                        break
                    self._engine.gate.release(ticket)
        except TimeoutError:
            raise Refused(call.away) from None
        finally:
            call.waiting = None
        call.queue_seconds = time.monotonic() - came
        self._metrics.queued(call.rank, call.queue_seconds)
        return ticket, inside


def _json(body: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def _listening(host: str, port: int) -> socket.socket:
    """A socket whose connections (they inherit this on Linux) notice a peer that vanished."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for name, value in (("TCP_KEEPIDLE", _VANISHED_SECONDS - 6), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    made.bind(address)
    return made


def _url(settings: IngressSettings, port: int, tls: bool) -> str:
    """Where the ingress is reached: where it listens, or by this machine's name if it listens everywhere."""
    host = socket.gethostname() if settings.ingress_host in ("", "0.0.0.0", "::") else settings.ingress_host
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
