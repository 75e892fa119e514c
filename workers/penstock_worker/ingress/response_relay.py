"""The response relay: one admitted call's answer, from the engine to its caller, byte for byte as it comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Final

import structlog
from aiohttp import web

from penstock_worker.admission.gate import Ticket
from penstock_worker.engine.client import EngineGone, EngineTimeout, Stream
from penstock_worker.engine.rate_limits import hold_seconds
from penstock_worker.engine_context import EngineContext
from penstock_worker.ingress.call import Call, Refusal, Refused
from penstock_worker.ingress.call_outcomes import CallOutcome, CallOutcomes
from penstock_worker.ingress.call_packs import CallPacks
from penstock_worker.ingress.ingress_metrics import IngressMetrics

log = structlog.get_logger()

_PASSED: Final = ("content-type", "content-length", "retry-after")
_STREAMED: Final = "text/event-stream"
# vLLM's way to end a stream whose EngineCore died. An answer's own text can't look like this: it is escaped there.
_ERROR_EVENT: Final = b'data: {"error"'
_STALLED_SECONDS: Final = 0.01


class ResponseRelay:
    """The way of one call's answer. `through` is called once."""

    def __init__(
        self,
        engine: EngineContext,
        packs: CallPacks,
        call: Call,
        outcomes: CallOutcomes,
        metrics: IngressMetrics,
        ticket: Ticket,
    ) -> None:
        self._done = partial(engine.gate.release, ticket)
        """Gives its slot back, once the engine is done with it."""
        self._engine = engine
        self._packs = packs
        self._call = call
        self._outcomes = outcomes
        self._metrics = metrics
        self._response: web.StreamResponse | None = None
        self._has_error_event = False
        self._tail = b""
        self._is_noted = False

    async def through(self, request: web.BaseRequest, body: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
        """Ask the engine, and pass on what it says. Raises Refused while nothing was passed on."""
        call = self._call
        try:
            return await self._ask(request, body, headers)
        except asyncio.CancelledError:
            if not call.cut or call.task is None:
                self._note(CallOutcome.LEFT)
                raise
            call.task.uncancel()
            return self._end(request, CallOutcome.UNANSWERED, Refusal.UNANSWERED)
        except (ConnectionError, TimeoutError):  # of the caller: it left, or takes nothing any more
            return self._end(request, CallOutcome.LEFT, Refusal.WAITED)

    async def _ask(self, request: web.BaseRequest, body: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
        settings, call = self._engine.settings, self._call
        seconds = settings.call_seconds + settings.call_wait_seconds  # the router gives up before
        try:
            async with self._packs.open(call, body, seconds, self._done) as answer:
                response = await self._pass_on(request, answer, headers)
        except EngineGone as gone:
            return await self._broken(request, gone)
        except EngineTimeout:
            return self._end(request, CallOutcome.UNANSWERED, Refusal.WAITED)
        if self._has_error_event and not await self._engine.supervisor.lives(answer.generation):
            self._note(CallOutcome.ENGINE_DIED)
            await response.write_eof()
        else:
            await response.write_eof()
            self._note(CallOutcome.ANSWERED)
        return response

    async def _pass_on(
        self, request: web.BaseRequest, answer: Stream, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        call, engine = self._call, self._engine
        hold = hold_seconds(answer.headers)
        if engine.supervisor.launch.profile.is_busy(answer.status, hold):
            self._note(CallOutcome.ANSWERED)
            raise Refused(Refusal.LIMITED, retry_after_seconds=engine.backpressure.refused_call(hold))
        if answer.status >= 500 and not await self._engine.supervisor.lives(answer.generation):
            # vLLM answers 500 to all that is in flight when its EngineCore dies.
            raise EngineGone(f"the engine died and answered {answer.status}", generation=answer.generation)
        # The head goes out with the first bytes: until then another worker can be asked.
        first = await anext(answer.chunks, b"")
        if first.startswith(_ERROR_EVENT) and not await self._engine.supervisor.lives(answer.generation):
            raise EngineGone("the engine died and began with an error event", generation=answer.generation)
        told = {name: answer.headers[name] for name in _PASSED if name in answer.headers}
        response = web.StreamResponse(
            status=answer.status, headers={**told, **headers, "x-penstock-queue-ms": f"{call.queue_seconds * 1000:.0f}"}
        )
        self._response = response
        is_timed = call.rank.is_realtime and told.get("content-type", "").startswith(_STREAMED)
        if is_timed:
            self._metrics.ttft(time.monotonic() - call.came_at)
        await response.prepare(request)
        call.began = True
        if first:
            await self._write(response, first)
        await self._rest(response, answer.chunks, is_timed)
        return response

    async def _rest(self, response: web.StreamResponse, chunks: AsyncIterator[bytes], is_timed: bool) -> None:
        came_at: float | None = time.monotonic()
        async for chunk in chunks:
            now = time.monotonic()
            stalled = await self._write(response, chunk)
            if is_timed and came_at is not None:
                self._metrics.gap(now - came_at)
            # What was read after a wait for the reader says nothing about the engine.
            came_at = None if stalled else now

    async def _write(self, response: web.StreamResponse, chunk: bytes) -> bool:
        """Pass bytes on; say whether the reader kept us waiting."""
        reach = len(_ERROR_EVENT) - 1
        if _ERROR_EVENT in chunk or _ERROR_EVENT in self._tail + chunk[:reach]:
            self._has_error_event = True
        self._tail = chunk[-reach:]
        begun = time.monotonic()
        async with asyncio.timeout(self._engine.settings.slow_body_seconds):
            await response.write(chunk)
        return time.monotonic() - begun > _STALLED_SECONDS

    async def _broken(self, request: web.BaseRequest, gone: EngineGone) -> web.StreamResponse:
        """The engine's connection broke, or was never there."""
        suspects = self._engine.gate.trying
        if await self._engine.supervisor.lives(gone.generation):
            log.warning("call_unanswered", call=self._call.id, error=str(gone))
            return self._end(request, CallOutcome.UNANSWERED, Refusal.UNANSWERED)
        if not gone.sent:
            raise Refused(Refusal.NOT_READY)
        return self._end(request, CallOutcome.ENGINE_DIED, Refusal.ENGINE_DIED, suspects=suspects)

    def _end(
        self, request: web.BaseRequest, outcome: CallOutcome, refusal: Refusal, *, suspects: bool = False
    ) -> web.StreamResponse:
        """Refuse, if nothing was passed on; else break the caller's connection, so that no answer looks whole."""
        self._note(outcome, suspects=suspects)
        if self._response is None or not self._call.began:
            raise Refused(refusal, suspects=suspects)
        if request.transport is not None:
            request.transport.abort()
        return self._response

    def _note(self, outcome: CallOutcome, *, suspects: bool = False) -> None:
        if self._is_noted:  # who leaves at the very end has his answer, or his engine's death, all the same
            return
        self._is_noted = True
        self._outcomes.note(self._call.id, outcome, suspects=suspects)
        self._metrics.ended(outcome)
