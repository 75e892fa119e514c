"""Small job intake: what small jobs need, looked up once a second for all of them; and their way to the workers.

So a POST is a part of one short statement (`insert_batcher.py`), however many come. What is a second old at most: a
model's facts, what a tenant has open (what this process took in since then is added) and may have open, and what the
caller of a like job was told to expect.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import structlog
from cachetools import LRUCache

from penstock.domain.accounts.access import MOST_NAMED, unknown
from penstock.domain.accounts.eta import Expectation
from penstock.domain.api_errors import ModelNotFound, NotFound, Unavailable
from penstock.domain.ensembles.ensemble import ChosenMember, Ensemble
from penstock.domain.fleet.model import ModelFacts
from penstock.domain.limits.limit import LimitName, Limits
from penstock.domain.models.alias import place_of_batch
from penstock.domain.models.registry import ModelTarget, Registry, UnknownTarget
from penstock.domain.single_flight import SingleFlight
from penstock.domain.work.batch import Batch
from penstock.domain.work.new_batch import NewBatch, NewJob
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.service.intake.insert_batcher import InsertBatcher
from penstock.service.lifecycle import dispatch
from penstock.service.limits import budget, kept
from penstock.service.models import registry
from penstock.service.views import batch_view
from penstock.service.views.batch_view import BatchView
from penstock.settings import Settings
from penstock.store.accounts import limits
from penstock.store.fleet import models

log = structlog.get_logger()

_FRESH_SECONDS: Final = 1.0
_FEED_SECONDS: Final = 0.1
"""A model is fed once in so long: each feed is a statement, a hint, a claim and a record, for however many jobs."""
_MOST_REMEMBERED: Final = 1_000


@dataclass
class _Looked:
    """What was found for a tenant and a model, and what the tenant's jobs added since."""

    at: float
    registry: Registry
    facts: dict[str, ModelFacts]
    """By queue."""
    given: Limits
    used: dict[LimitName, int]


class SmallJobIntake:
    """One API process's, on its event loop."""

    def __init__(self, db: AsyncDatabase, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._settings = settings
        self._clock = clock
        self._looked: LRUCache[tuple[str, str], _Looked] = LRUCache(_MOST_REMEMBERED)
        self._looking: SingleFlight[tuple[str, str], _Looked] = SingleFlight()
        self._told: LRUCache[tuple[Any, ...], tuple[float, BatchView | None]] = LRUCache(_MOST_REMEMBERED)
        self._telling: SingleFlight[tuple[Any, ...], BatchView] = SingleFlight()
        self._feeding: dict[str, asyncio.Task[None]] = {}
        self._due: set[str] = set()
        self._arrivals = InsertBatcher(db)

    async def ensemble(self, new: NewBatch, model: str) -> Ensemble | None:
        """The ensemble that a new job's model names, if it names one; raises as `look` does."""
        return (await self._looked_for(new, model)).registry.ensemble(model)

    async def look(
        self, new: NewBatch, model: str, chosen: ChosenMember | None = None
    ) -> tuple[ModelTarget, ModelFacts | None]:
        """What a new job's model (or the member of it that was chosen) stands for, and what its lines taught.

        Raises ModelNotFound, which names models that the job's key may ask, or says what is wrong with an alias or
        version, or BadRequest if it lacks a price that is needed.
        """
        looked = await self._looked_for(new, model)
        named = chosen.model if chosen else model
        try:
            target = looked.registry.resolve(named, place_of_batch(new.id, looked.registry.name_of(named)))
        except UnknownTarget as error:
            raise ModelNotFound(error.message, code=error.code) from None
        return target, looked.facts.get(target.queue)

    async def _looked_for(self, new: NewBatch, model: str) -> _Looked:
        allowed = new.terms.allowed_models
        try:
            return await self._look(new.tenant, model)
        except NotFound:
            some = await self._db.autocommit(_some_models, allowed)
            raise ModelNotFound(unknown(model, some, allowed)) from None

    async def reserve(self, tenant: str, model: str, lines: int, tokens: int) -> None:
        """Count a job as open; raise TooMany if the tenant had more open than it may with it."""
        looked = await self._look(tenant, model)
        more = {LimitName.OPEN_BATCHES: 1, LimitName.QUEUED_LINES: lines, LimitName.QUEUED_TOKENS: tokens}
        for name, amount in more.items():
            if error := kept.refusal(name, looked.used[name], amount, looked.given, self._settings):
                raise error
        for name, amount in more.items():
            looked.used[name] += amount

    async def insert(self, job: NewJob) -> Batch:
        """Make a job, with others that come at this moment; raise Unavailable (it may be there all the same)."""
        return await self._arrivals.insert(job)

    async def _look(self, tenant: str, model: str) -> _Looked:
        known = self._looked.get((tenant, model))
        if known is None or self._clock() - known.at > _FRESH_SECONDS:
            return await self._looking.ask((tenant, model), lambda: self._look_now(tenant, model))
        return known

    async def _look_now(self, tenant: str, model: str) -> _Looked:
        at = self._clock()
        known = self._looked[tenant, model] = _Looked(at, *await self._db.autocommit(_look, tenant, model))
        return known

    def feed(self, model: str) -> None:
        """Feed a model soon: at once, or a moment after the feed before it, once for all that came meanwhile.

        Should this process end first, the keeper's next tick does it.
        """
        self._due.add(model)
        if model not in self._feeding:
            self._feeding[model] = asyncio.create_task(self._feed(model))

    async def _feed(self, model: str) -> None:
        try:
            while model in self._due:
                self._due.discard(model)
                again_at = self._clock() + _FEED_SECONDS
                try:
                    await self._db.run(dispatch.feed, model, self._settings)
                except Unavailable as error:
                    log.warning("not_fed", model=model, error=error.message)
                await asyncio.sleep(again_at - self._clock())
        finally:
            del self._feeding[model]

    async def seen(self, made: Batch) -> BatchView:
        """A job that was just made: why it waits, and when it is expected, as a like one was told a moment ago."""
        if not made.inline:
            return await self._db.autocommit(batch_view.seen, made, self._settings)
        like = (made.tenant, made.model, made.lane, made.completion_window, made.total)
        at, told = self._told.get(like, (0.0, None))
        if told is None or self._clock() - at > _FRESH_SECONDS:
            told = await self._telling.ask(like, lambda: self._tell(like, made))
        later = made.created_at - told.batch.created_at
        return BatchView(made, told.waiting, told.expected and _shifted(told.expected, later))

    async def _tell(self, like: tuple[Any, ...], made: Batch) -> BatchView:
        told: BatchView = await self._db.autocommit(batch_view.seen, made, self._settings)
        self._told[like] = (self._clock(), told)
        return told

    async def close(self) -> None:
        """Make and feed no more."""
        await self._arrivals.close()
        tasks = list(self._feeding.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _look(
    tx: Transaction, tenant: str, model: str
) -> tuple[Registry, dict[str, ModelFacts], Limits, dict[LimitName, int]]:
    found = registry.of(tx, model)
    if found.ensemble(model) is None and found.name_of(model) not in found.names:
        raise NotFound("model", model, param="model", code="model_not_found")
    queues = sorted(found.queues)
    budget.check_price(tx, tenant, queues)
    return found, models.facts(tx.conn, queues), *limits.open_work(tx.conn, tenant)


def _some_models(tx: Transaction, allowed: frozenset[str] | None) -> list[str]:
    return models.first_names(tx.conn, allowed, MOST_NAMED + 1)


def _shifted(expected: Expectation, later: timedelta) -> Expectation:
    moved = {
        name: at + later
        for name in ("expected_at", "earliest_at", "latest_at")
        if (at := getattr(expected, name)) is not None
    }
    return dataclasses.replace(expected, **moved)
