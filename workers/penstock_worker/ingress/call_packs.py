"""Call packs: which waiting calls for embeddings or scores go to the engine together, and which alone.

A call goes at once while fewer than two requests of its kind are in the engine: whoever asks one after the other waits
for nobody. Else it waits until that is so, `call_pack_seconds` at most, and those that wait by then are one request. Of
one kind are a tenant's calls that differ in their input alone (formats/list_request.py); where tokens
can't be counted here, which takes their usage apart (token_counter.py), all go alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from penstock.formats import list_request
from penstock.formats.list_request import OneInput
from penstock_worker.engine.client import Stream
from penstock_worker.engine_context import EngineContext
from penstock_worker.ingress.call import Call
from penstock_worker.ingress.call_pack import CallPack, PackedCall, WholeAnswer
from penstock_worker.ingress.ingress_metrics import IngressMetrics

log = structlog.get_logger()

_MOST_TOKENS: Final = 256
"""Of one input. Longer ones are the engine's own time, in a list as alone (docs/benchmarks.md, row I)."""

_AT_ONCE: Final = 2
"""While one request is made or read another is computed; what comes beyond them would wait in the engine, too."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What those have in common that may go together."""

    tenant: str
    endpoint: str
    asked: bytes


@dataclass(eq=False, slots=True)
class _Queue:
    """Those of one kind; there is one while any is in the engine."""

    inside: int = 0
    """Requests in the engine, of one call or of many."""
    waiting: list[PackedCall] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


class CallPacks:
    """The calls of one ingress on their way into its engine, on the worker's asyncio loop."""

    def __init__(self, engine: EngineContext, metrics: IngressMetrics) -> None:
        self._engine = engine
        self._settings = engine.settings
        self._metrics = metrics
        self._queues: dict[_Kind, _Queue] = {}
        self._asking: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self, call: Call, body: bytes, seconds: float, done: Callable[[], None]) -> AsyncIterator[Stream]:
        """Ask the engine, with others or alone; what it says, what is raised and `done` are `EngineClient.open`'s."""
        one = self._joinable(call.endpoint, body)
        if one is None:
            async with self._engine.client.open(call.endpoint, body, seconds, call.id, done) as answer:
                yield answer
            return
        kind = _Kind(call.tenant, call.endpoint, one.kind)
        try:
            whole = await self._with_others(kind, one, body, seconds)
        except BaseException:
            done()
            raise
        if whole is None:
            with self._inside(kind):
                async with self._engine.client.open(call.endpoint, body, seconds, call.id, done) as answer:
                    yield answer
            return
        try:
            yield _stream(whole)
        finally:
            done()

    def _joinable(self, endpoint: str, body: bytes) -> OneInput | None:
        """A call's input, if it may go with others."""
        counter, settings = self._engine.token_counter, self._settings
        if counter is None or counter.doubted or not settings.call_pack_seconds or settings.pack_lines < 2:
            return None
        if self._tokens(body) > 2 * _MOST_TOKENS:  # not worth reading: few bytes of it are not its input
            return None
        return list_request.read(endpoint, body)

    def _tokens(self, body: bytes) -> float:
        return len(body) / self._settings.bytes_per_token

    async def _with_others(self, kind: _Kind, one: OneInput, body: bytes, seconds: float) -> WholeAnswer | None:
        """The answer to a call that was asked with others; None: it goes alone."""
        queue = self._queues.get(kind)
        tokens = sum(len(text.encode(errors="surrogatepass")) for text in one.texts) / self._settings.bytes_per_token
        if queue is None or queue.inside < _AT_ONCE or tokens > _MOST_TOKENS:
            return None
        loop = asyncio.get_running_loop()
        call = PackedCall(body, one, tokens, seconds, loop.create_future())
        if len(queue.waiting) == self._settings.pack_lines or (
            sum(other.tokens for other in queue.waiting) + tokens > self._settings.pack_tokens
        ):
            self._send(kind, queue)
        queue.waiting.append(call)
        if queue.timer is None:
            queue.timer = loop.call_later(self._settings.call_pack_seconds, self._send, kind, queue)
        return await call.end

    @contextmanager
    def _inside(self, kind: _Kind) -> Iterator[None]:
        """A request of this kind is in the engine; once it has ended, those go who wait."""
        queue = self._queues.setdefault(kind, _Queue())
        queue.inside += 1
        try:
            yield
        finally:
            queue.inside -= 1
            if queue.inside < _AT_ONCE:
                self._send(kind, queue)
            if not queue.inside:
                del self._queues[kind]

    def _send(self, kind: _Kind, queue: _Queue) -> None:
        """Those who wait, wait no longer."""
        if queue.timer is not None:
            queue.timer.cancel()
            queue.timer = None
        calls, queue.waiting = [call for call in queue.waiting if not call.end.done()], []
        if len(calls) == 1:
            calls[0].ends(None)
        elif calls:
            pack = CallPack(self._engine, kind.endpoint, calls)
            asking = asyncio.create_task(self._ask(kind, pack))
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)

            def left(_: object) -> None:
                if pack.is_over:  # if all have left, the engine hears of it
                    asking.cancel()

            for call in calls:
                call.end.add_done_callback(left)

    async def _ask(self, kind: _Kind, pack: CallPack) -> None:
        """Bring all of a pack to their ends."""
        try:
            with self._inside(kind):
                await pack.ask()
        except Exception:
            log.exception("call_pack_broken", endpoint=kind.endpoint, calls=len(pack.calls))
        finally:
            self._metrics.packed(sum(call.has_answer for call in pack.calls))
            for call in pack.calls:
                call.ends(None)


def _stream(whole: WholeAnswer) -> Stream:
    """An answer as an engine would give it to the call alone."""

    async def chunks() -> AsyncIterator[bytes]:
        yield whole.body

    head = {"content-type": "application/json", "content-length": str(len(whole.body))}
    return Stream(200, head, chunks(), whole.generation)
