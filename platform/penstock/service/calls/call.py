"""Waiting calls: read, offered to a worker, offered again where that is safe, and passed on as the answer comes.

nothing of the answer is with the client    full · share · closed · draining · not-ready · limited · unreachable ·
                                            unanswered
                                                → another worker, `call_tries` in all
                                            engine-died · worker-lost → once on another worker
                                            waited → 503
its version is asleep in a pool             it waits for it, if it is on demand there; else 503
its answer is in the shared cache           no worker is asked
some of it is with the client               a stream ends with an error event; what is no stream is cut
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final
from uuid import UUID

from penstock.domain.accounts.access import check_model, unknown
from penstock.domain.adapter import revision_with
from penstock.domain.api_errors import (
    CallTimeout,
    EngineCrash,
    ModelNotFound,
    Unavailable,
)
from penstock.domain.calls.ingress import Ingress
from penstock.domain.engines.profile import EngineLack
from penstock.domain.models.alias import WHOLE, place_of
from penstock.domain.models.registry import UnknownTarget
from penstock.domain.reuse import CacheMode
from penstock.formats.answers import call_answer, engine_error
from penstock.formats.answers.call_answer import Events
from penstock.service.calls import call_reading, call_refusals
from penstock.service.calls.call_attempt import DEATHS, Broken, CallAttempt, CallHead, NotTaken
from penstock.service.calls.call_metrics import OFFERED_AGAIN
from penstock.service.calls.call_request import CallRead, CallRequest
from penstock.service.calls.call_tally import Party
from penstock.service.calls.gathered_request import GatheredRequest
from penstock.service.calls.poison import Poison
from penstock.service.calls.wake_waits import WakeWaits
from penstock.service.calls.worker_directory import WorkerDirectory
from penstock.settings import Settings
from penstock.wire.cache import AsyncCache, Entry, key_of
from penstock.wire.ingress_client import IngressClient

_JSON: Final = "application/json"
_WHOLE_BYTES: Final = 256 * 1024
"""An answer that is no stream is collected up to this size, so that it can still be asked for elsewhere."""
_WHOLE_WITH_MORE_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class CallAnswer:
    """An answer that has begun."""

    status: int
    content_type: str
    headers: tuple[tuple[str, str], ...]
    whole: bytes | None
    """All of it; None if it comes in pieces."""
    pieces: AsyncIterator[bytes] | None = None
    """Raises Broken where it can't say in the answer itself that it broke off."""
    reused: bool = False
    """It was in the shared cache: no worker was asked."""
    party: Party | None = None
    """Of a stream of an ensemble that gathers: the member whose it is, who is counted at its end."""


class Calls:
    """The waiting calls of one process, on one event loop."""

    def __init__(
        self,
        directory: WorkerDirectory,
        client: IngressClient,
        poison: Poison,
        settings: Settings,
        cache: AsyncCache | None = None,
        chance: Random | None = None,
        wakes: WakeWaits | None = None,
    ) -> None:
        self._directory = directory
        self._wakes = wakes
        self._chance = chance or Random()
        self._client = client
        self._poison = poison
        self._settings = settings
        self._cache = cache

    async def read(
        self,
        id: str,
        tenant: str,
        endpoint: str,
        raw: bytes,
        session: str | None,
        cache: str | None = None,
        allowed_models: frozenset[str] | None = None,
        api_key: str | None = None,
    ) -> CallRequest | GatheredRequest:
        """Read a call's body; `cache` is its header's word about that, `api_key` whose usage it is.

        Raises BadRequest, Forbidden for a model that is not allowed, ModelNotFound for an unknown one (or an unknown
        alias or version, or one that is retired), or Unavailable if none is known yet.
        """
        deadline = asyncio.get_running_loop().time() + self._settings.call_seconds
        given = CallRead(id, tenant, endpoint, raw, session, deadline, cache, self._directory.caches(tenant), api_key)
        ask = await call_reading.read(given, self._directory.registry, self._settings)
        check_model(allowed_models, ask.model)
        if isinstance(ask, GatheredRequest):
            return await self._aimed(ask)
        if not await self._directory.knows(ask.named) and self._directory.registry.name_of(ask.named) == ask.named:
            named = (*self._directory.registry.names, *self._directory.registry.ensembles)
            raise ModelNotFound(unknown(ask.model, named, allowed_models))
        if ask.chosen is None and self._directory.registry.ensemble(ask.model):  # it was added at this moment
            ask = await call_reading.read(given, self._directory.registry, self._settings)
            if isinstance(ask, GatheredRequest):
                return await self._aimed(ask)
        try:
            target = await self._directory.target(ask.named, self._place(ask))
            return replace(ask, target=target, began=asyncio.get_running_loop().time())
        except UnknownTarget as error:
            raise ModelNotFound(error.message, code=error.code) from None

    async def _aimed(self, ask: GatheredRequest) -> GatheredRequest:
        named = [member.model for member in ask.ensemble.definition.asked]
        targets = await self._directory.targets(named, self._place(ask.first))
        return ask.aimed(targets, asyncio.get_running_loop().time())

    def _place(self, ask: CallRequest) -> float:
        """Whoever has a session stays with one version while its alias stands as it does; others are parted by
        chance."""
        return self._chance.random() * WHOLE if ask.caller is None else place_of(ask.caller)

    def lacks(self, model: str, lack: EngineLack) -> bool:
        """Whether no engine of this model can do this."""
        return self._directory.lacks(model, lack)

    @asynccontextmanager
    async def begin(self, ask: CallRequest, *, wakes: bool = True) -> AsyncIterator[CallAnswer]:
        """An answer that has begun, of the shared cache or of a worker, which hears when nobody listens any more.

        A version that is asleep in a pool is woken and waited for, if it is on demand there and the call `wakes`.
        Raises EngineCrash, Unavailable and CallTimeout.
        """
        with ExitStack() as stack:
            try:
                async with asyncio.timeout_at(ask.deadline):
                    answer = await self._look_up(ask) or await self._find_awake(ask, stack, wakes)
            except TimeoutError:
                raise CallTimeout from None
            del ask  # a stream may last: nobody needs the call's body any more
            yield answer

    async def _look_up(self, ask: CallRequest) -> CallAnswer | None:
        """The answer that the shared cache has, if workers of the model agree on what they are."""
        if self._cache is None or ask.lasting is None or ask.cache.mode is not CacheMode.ON:
            return None
        queue = ask.target.queue
        revision = revision_with(self._directory.revision(queue), ask.target.adapter)
        body = await self._cache.get(key_of(ask.tenant, queue, revision, ask.lasting)) if revision else None
        if body is None:
            return None
        headers = (("x-penstock-cache", "hit"), *ask.head)
        return CallAnswer(200, _JSON, headers, ask.saying(body, "reused"), reused=True)

    def _keep(self, ask: CallRequest, attempt: CallAttempt, body: bytes) -> None:
        """Store an answer for whoever asks the same again."""
        revision = revision_with(attempt.revision, ask.target.adapter)
        if self._cache is None or ask.lasting is None or ask.cache.mode is CacheMode.OFF or not revision:
            return
        key = key_of(ask.tenant, ask.target.queue, revision, ask.lasting)
        self._cache.keep(Entry(key, body, ask.cache.ttl_seconds))

    async def _find_awake(self, ask: CallRequest, stack: ExitStack, wakes: bool) -> CallAnswer:
        """The same as `_find`, once the version is awake; once more if it was put away just then."""
        if self._wakes is None or not wakes:
            return await self._find(ask, stack)
        await self._wakes.awake(ask.tenant, ask.target.queue, ask.model, ask.deadline)
        try:
            return await self._find(ask, stack)
        except Unavailable as error:
            if error.code != "no_worker" or self._directory.pooled(ask.target.queue) is None:
                raise
        await self._directory.refresh()
        await self._wakes.awake(ask.tenant, ask.target.queue, ask.model, ask.deadline)
        return await self._find(ask, stack)

    async def _find(self, ask: CallRequest, stack: ExitStack) -> CallAnswer:
        """The first worker's answer that begins; its attempt ends with the stack, all others here."""
        excluded: set[UUID] = set()
        unlucky: set[UUID] = set()  # asked again only if nobody else can be
        reasons: list[str] = []
        limited_seconds: list[int] = []
        while len(reasons) < self._settings.call_tries:
            self._poison.check(ask.fingerprint)
            ingress, last_resort = self._pick(ask, excluded, unlucky)
            if ingress is None:
                break
            if reasons:
                OFFERED_AGAIN.labels(reasons[-1]).inc()
            attempt = CallAttempt(
                self._client, self._directory, self._poison, ingress, f"{ask.id}-{len(reasons)}", ask.fingerprint
            )
            with ExitStack() as failed:
                failed.callback(attempt.end)
                try:
                    adapter = ask.target.adapter.id if ask.target.adapter else None
                    head = CallHead(ask.tenant, ask.tier, ask.sequences, last_resort, adapter)
                    await attempt.send(ask.endpoint, ask.body, head)
                    answer = await self._begun(ask, attempt)
                except NotTaken as not_taken:
                    reasons.append(not_taken.reason)
                    limited_seconds += [] if not_taken.retry_after_seconds is None else [not_taken.retry_after_seconds]
                else:
                    failed.pop_all()
                    stack.callback(attempt.end)
                    return answer
            if reasons[-1] == "waited" or sum(reason in DEATHS for reason in reasons) > 1:
                break
            if reasons[-1] in ("unanswered", "unreachable"):
                unlucky.add(ingress.worker)
            elif reasons[-1] != "closed" or last_resort:  # whoever is closed may still be the last resort
                excluded.add(ingress.worker)
        raise call_refusals.nobody(ask.model, reasons, min(limited_seconds, default=1))

    def _pick(self, ask: CallRequest, excluded: set[UUID], unlucky: set[UUID]) -> tuple[Ingress | None, bool]:
        only = self._poison.only(ask.fingerprint, unlucky)
        queue = ask.target.queue
        ingress = self._directory.choose(queue, ask.key, excluded | unlucky, only)
        if ingress is None and unlucky:
            ingress = self._directory.choose(queue, ask.key, excluded, only)
        if ingress is not None or only is not None:
            return ingress, False
        return self._directory.last_resort(queue, excluded), True

    async def _begun(self, ask: CallRequest, attempt: CallAttempt) -> CallAnswer:
        """The answer, once its first bytes are here. Raises NotTaken: nothing of it was passed on."""
        reply = attempt.reply
        headers: tuple[tuple[str, str], ...] = (
            ("x-penstock-worker", str(attempt.worker)[:8]),
            ("x-penstock-queue-ms", reply.headers.get("x-penstock-queue-ms", "0")),
            *ask.head,
        )
        if ask.lasting is not None and ask.cache.mode is not CacheMode.OFF:
            headers += (("x-penstock-cache", "miss"),)
        answer = CallAnswer(reply.status, reply.content_type, headers, None)
        said = ask.said
        first = await attempt.first()
        if reply.status < 400 and reply.content_type.startswith(call_answer.EVENT_STREAM):
            if call_answer.has_error(first) and call_answer.before_error(first) == 0:
                try:
                    first += await attempt.rest_after_error()
                except Broken as broken:
                    raise NotTaken(broken.reason) from None
            return replace(answer, pieces=_events(attempt, first, said, ask.deadline))
        most = _WHOLE_WITH_MORE_BYTES if said else _WHOLE_BYTES
        body = bytearray(first)
        while first and len(body) < most:
            first = await attempt.first()
            body += first
        if reply.status >= 300:
            return self._failed(ask, answer, bytes(body), reply.headers.get("retry-after"))
        if first:  # there is more: it passes as it comes
            return replace(answer, pieces=_pass_on(attempt, bytes(body), ask.deadline))
        whole = bytes(body)
        if reply.content_type.startswith(_JSON):
            self._keep(ask, attempt, whole)
        return replace(answer, whole=ask.saying(whole, "answered"))

    def _failed(self, ask: CallRequest, answer: CallAnswer, body: bytes, retry_after: str | None) -> CallAnswer:
        """An engine's refusal, as its client should read it."""
        if error := engine_error.ours(answer.status, body, ask.model, ask.endpoint):
            raise error
        more = (("retry-after", retry_after),) if retry_after and retry_after.isdecimal() else ()
        whole = engine_error.reshaped(answer.status, body)
        return replace(answer, content_type="application/json", headers=answer.headers + more, whole=whole)


async def _events(attempt: CallAttempt, piece: bytes, said: Mapping[str, Any], deadline: float) -> AsyncIterator[bytes]:
    """Whole events as they come; a break becomes one more event."""
    events = Events()

    def passed(whole: bytes) -> bytes:
        return call_answer.events_saying(whole, said) if said else whole

    try:
        while piece:
            whole = events.feed(piece)
            if call_answer.has_error(whole):
                good = call_answer.before_error(whole)
                if good:
                    yield passed(whole[:good])
                async with asyncio.timeout_at(deadline):
                    whole = whole[good:] + events.feed(await attempt.rest_after_error())
                yield call_answer.events_with_envelope(whole)
            elif whole:
                yield passed(whole)
            async with asyncio.timeout_at(deadline):
                piece = await attempt.more()
        if events.held:
            yield events.rest()
    except (Broken, EngineCrash, TimeoutError) as error:
        told = call_refusals.said(error)
        body = engine_error.error_body(told.message, told.type, told.code)
        yield call_answer.error_event(body, torn=events.torn)


async def _pass_on(attempt: CallAttempt, piece: bytes, deadline: float) -> AsyncIterator[bytes]:
    """Bytes as they come."""
    while piece:
        yield piece
        try:
            async with asyncio.timeout_at(deadline):
                piece = await attempt.more()
        except (TimeoutError, EngineCrash) as error:
            raise Broken("engine-died" if isinstance(error, EngineCrash) else "too-long") from None
