"""The webhook sender: sends what is owed to webhook endpoints, many at once on one asyncio loop.

It looks for due deliveries by itself, twice a second; a hint only makes it look at once. A place is one attempt under
way, until its outcome is recorded. A receiver has a few places, and a single one while it gives no answer in time; a
tenant has some more. So receivers that hang hold up themselves, and not the others.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import structlog

from penstock.domain.api_errors import OutboundFailed, OutboundRefused, Unavailable
from penstock.domain.webhook import AttemptOutcome, Due, judge, retry_after
from penstock.failpoint import failpoint
from penstock.formats import webhook
from penstock.service.core.transaction import AsyncDatabase
from penstock.service.webhooks import secret_keys, webhook_queue
from penstock.service.webhooks.secret_keys import SecretUnreadable
from penstock.settings import Settings
from penstock.wire.outbound import Outbound, Reply
from penstock_worker.runtime.loop_thread import LoopThread

log = structlog.get_logger()

_PAUSE_SECONDS: Final = 0.5
_HEARD_SECONDS: Final = 5.0
_MOST_RECORDED: Final = 500
_MOST_SILENT: Final = 10_000


class WebhookSender:
    """From `with` to its end; `drain` ends it earlier: what is under way has a grace, the rest is given back."""

    def __init__(
        self, db: AsyncDatabase, outbound: Outbound, settings: Settings, chance: Callable[[], float] = random.random
    ) -> None:
        self._db = db
        self._outbound = outbound
        self._settings = settings
        self._keys = secret_keys.of(settings)
        self._chance = chance
        self._loop = LoopThread()
        self._in_hand: dict[tuple[str, int], tuple[Due, asyncio.Task[None]]] = {}
        """What is being sent or waits to be recorded, by delivery and number of the attempt."""
        self._told: list[tuple[Due, AttemptOutcome, bool]] = []
        self._silent: dict[str, None] = {}
        """Receivers that gave no answer in time when they were last asked; the oldest first."""
        self._paused = False
        """An operator has drained the worker: no more attempts are begun."""
        self._unheard = False
        """Whether what came of attempts can't be recorded at the moment: then no more of them are begun."""
        self._ending: Future[None] | None = None

    def __enter__(self) -> WebhookSender:
        self._loop.__enter__()
        self._loop.run(self._open()).result()
        return self

    def __exit__(self, *_: object) -> None:
        self.drain()
        assert self._ending is not None, "it drains"
        self._ending.result()
        self._loop.run(self._close()).result()
        self._loop.__exit__()

    def hear(self, batch: str) -> str:
        """A hint came: take what is due now. A sentence for Flower."""
        try:
            return f"{batch} · {self._loop.run(self._take()).result(_HEARD_SECONDS)} deliveries taken"
        except (Unavailable, TimeoutError):
            return f"{batch} · put off: the database is away"

    @property
    def holds(self) -> bool:
        """Whether an attempt is under way, or not recorded yet."""
        return bool(self._in_hand)

    def drain(self) -> None:
        """Take nothing more, and end what is under way within the grace."""
        if self._ending is None:
            self._ending = self._loop.run(self._end())

    def pause(self, paused: bool) -> None:
        """Begin no more attempts, or begin them again; those under way go on, and this returns once they are over."""
        self._paused = paused
        if paused and self._ending is None:
            self._loop.run(self._rest()).result()

    async def _rest(self) -> None:
        async with self._taking:  # whoever is claiming just now has them in hand then
            pass
        await self._empty.wait()

    async def _open(self) -> None:
        self._look_now, self._record_now, self._empty = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._empty.set()
        self._taking = asyncio.Lock()
        await self._outbound.__aenter__()
        self._duties = [asyncio.create_task(self._look()), asyncio.create_task(self._record())]

    async def _close(self) -> None:
        for duty in self._duties:
            duty.cancel()
        await asyncio.gather(*self._duties, return_exceptions=True)
        await self._outbound.__aexit__(None, None, None)
        await self._db.close()

    async def _end(self) -> None:
        """Let attempts end for a while, then break them off and give them back; what came of others is recorded."""
        async with self._taking:  # whoever is claiming just now has them in hand then
            pass
        await self._wait_until_empty()
        broken = {key: task for key, (_, task) in self._in_hand.items() if not task.done()}
        for task in broken.values():
            task.cancel()
        if broken:
            with suppress(Unavailable):  # else they are due again when their claims end
                await self._db.run(webhook_queue.put_back, list(broken))
        self._let_go(broken)
        await self._wait_until_empty()
        self._let_go(list(self._in_hand))

    async def _wait_until_empty(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), self._settings.close_grace_seconds)

    def _let_go(self, keys: Iterable[tuple[str, int]]) -> None:
        for key in keys:
            self._in_hand.pop(key, None)
        if not self._in_hand:
            self._empty.set()

    # Looking: what is due is claimed, as much as there are places.

    async def _look(self) -> None:
        while True:
            self._look_now.clear()
            try:
                await self._take()
            except Unavailable as error:
                log.warning("deliveries_wait", error=error.message)
            except Exception:
                log.exception("looking_failed")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._look_now.wait(), self._settings.webhook_poll_seconds)

    async def _take(self) -> int:
        """Claim what is due, and begin to send it; how much."""
        async with self._taking:
            free = self._settings.webhook_concurrency - len(self._in_hand)
            if free <= 0 or self._paused or self._unheard or self._ending:
                return 0
            taken = await self._db.run(webhook_queue.claim, free, self._rooms(), self._tenant_rooms(), self._settings)
            for due in taken:
                self._empty.clear()
                self._in_hand[due.id, due.number] = due, asyncio.create_task(self._send(due))
            if taken:
                failpoint("delivery.claimed")
            return len(taken)

    def _rooms(self) -> dict[str, int]:
        """Places that are left to receivers which have not all of theirs."""
        held = Counter(due.receiver for due, _ in self._in_hand.values())
        each = self._settings.webhook_receiver_concurrency
        return {
            receiver: (1 if receiver in self._silent else each) - held[receiver] for receiver in {*held, *self._silent}
        }

    def _tenant_rooms(self) -> dict[str, int]:
        held = Counter(due.tenant for due, _ in self._in_hand.values())
        return {tenant: self._settings.webhook_tenant_concurrency - count for tenant, count in held.items()}

    # Sending: one attempt.

    async def _send(self, due: Due) -> None:
        began = time.monotonic()
        reply, error = await self._attempt(due)
        seconds = time.monotonic() - began
        status = reply.status if reply else None
        self._note_silence(due.receiver, status is None and seconds >= 0.9 * self._settings.webhook_timeout_seconds)
        asked = retry_after(reply.headers.get("retry-after"), datetime.now(UTC)) if reply else None
        waits = self._settings.webhook_waits_seconds if due.enabled and not due.test else (0.0,)
        verdict = judge(status, asked, due.tries, waits, self._chance())
        failpoint("delivery.answered")
        told = AttemptOutcome(
            id=due.id,
            number=due.number,
            state=verdict.state,
            wait_seconds=verdict.wait_seconds,
            at=due.claimed_at,
            status=status,
            # How long it took to learn that nothing answers would tell what it was.
            milliseconds=0 if error == webhook_queue.NO_ANSWER else int(seconds * 1000),
            answer=reply.start[: self._settings.webhook_answer_kept_bytes] if reply else None,
            error=error,
        )
        self._told.append((due, told, verdict.gone))
        self._record_now.set()

    async def _attempt(self, due: Due) -> tuple[Reply | None, str | None]:
        """The receiver's answer, or why there is none."""
        if not due.enabled:
            return None, "the endpoint is disabled"
        secrets = self._secrets(due)
        if not secrets:
            return None, webhook_queue.NO_SECRET
        body = webhook.body(due)
        try:
            reply = await self._outbound.post(
                due.url,
                headers=webhook.headers(due, body, secrets),
                body=body,
                timeout_seconds=self._settings.webhook_timeout_seconds,
                most_bytes=self._settings.webhook_answer_kept_bytes,
            )
        except (OutboundRefused, OutboundFailed) as error:
            log.info("webhook_not_answered", delivery=due.id, endpoint=due.endpoint, reason=error.reason)
            return None, error.told or webhook_queue.NO_ANSWER
        except Exception as error:  # our own fault: it costs this attempt, not the post
            log.exception("delivery_broke", delivery=due.id)
            return None, f"internal error: {type(error).__name__}"
        return reply, None

    def _secrets(self, due: Due) -> list[str]:
        """What to sign with; nothing if the present secret can't be read: no receiver would believe it."""
        secrets: list[str] = []
        for number, sealed in enumerate(due.sealed):
            try:
                secrets.append(self._keys.open(sealed))
            except SecretUnreadable as error:
                log.error("webhook_secret_unreadable", endpoint=due.endpoint, tenant=due.tenant, reason=str(error))
                if number == 0:
                    return []
        return secrets

    def _note_silence(self, receiver: str, silent: bool) -> None:
        self._silent.pop(receiver, None)
        if silent:
            self._silent[receiver] = None
            if len(self._silent) > _MOST_SILENT:
                del self._silent[next(iter(self._silent))]

    # Recording: what came of attempts, as much at once as there is.

    async def _record(self) -> None:
        while True:
            await self._record_now.wait()
            self._record_now.clear()
            while batch := self._told[:_MOST_RECORDED]:
                try:
                    gone = [(due.tenant, due.endpoint) for due, _, is_gone in batch if is_gone]
                    await self._db.run(webhook_queue.record, [told for _, told, _ in batch], gone)
                except Unavailable as error:
                    self._unheard = True
                    log.warning("deliveries_not_recorded", error=error.message)
                    await asyncio.sleep(_PAUSE_SECONDS)
                    continue
                except Exception:  # they are due again when their claims end
                    log.exception("recording_failed")
                failpoint("delivery.recorded")
                self._unheard = False
                del self._told[: len(batch)]
                self._let_go((due.id, due.number) for due, _, _ in batch)
                self._look_now.set()
