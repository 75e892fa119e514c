"""The worker directory: the ingresses that calls can be offered to, as the last table said it and calls found it.

The table is read from Postgres every second. While Postgres is away the last one stands; so calls go on.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from random import Random
from types import TracebackType
from typing import Final, Self
from uuid import UUID

import structlog

from penstock.domain.accounts.price import Price
from penstock.domain.api_errors import Unavailable
from penstock.domain.calls import routing
from penstock.domain.calls.breaker import CLOSED, Breaker
from penstock.domain.calls.ingress import Ingress
from penstock.domain.engines.profile import EngineLack
from penstock.domain.models.registry import ModelTarget, Registry, UnknownTarget
from penstock.service.calls import ingresses
from penstock.service.calls.ingresses import RoutingTable
from penstock.service.core.transaction import AsyncDatabase
from penstock.settings import Settings
from penstock.store.pools.pools import Servable

log = structlog.get_logger()

_LEAST_SECONDS_BETWEEN: Final = 0.2


class WorkerDirectory:
    """One process's view of all ingresses; used with `async with`, on one event loop."""

    def __init__(
        self,
        db: AsyncDatabase,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Random | None = None,
    ) -> None:
        self._db = db
        self._settings = settings
        self._clock = clock
        self._chance = chance or Random()
        self._table = RoutingTable((), Registry(frozenset()), frozenset())
        self._of_name: dict[str, tuple[Ingress, ...]] = {}
        self._read_at: float | None = None
        self._seen_at = -math.inf
        """When the last look at the table began."""
        self._away = False
        self._lenient_until = 0.0
        self._reading: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._inside: dict[UUID, int] = {}
        """Calls of this process in each ingress."""
        self._since: dict[UUID, int] = {}
        """Calls that went in, less those that came out, since the table was read."""
        self._shut: set[UUID] = set()
        """Ingresses that refused a call since the table was read."""
        self._news = asyncio.Event()
        """The next table is here."""
        self._breakers: dict[UUID, Breaker] = {}

    async def __aenter__(self) -> Self:
        self._keeping = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in (self._keeping, self._reading):
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    # The table.

    async def refresh(self) -> None:
        """Read the table now; who asks while it is being read waits for the same one. Never raises."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        await asyncio.shield(self._reading)

    async def _keep(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(self._settings.load_report_seconds)

    async def _read(self) -> None:
        began = self._clock()
        try:
            table = await self._db.autocommit(ingresses.table, self._settings)
        except Unavailable as error:
            if not self._away:
                log.warning("worker_directory_stands_still", error=error.message)
            self._away = True
        except Exception:
            log.exception("worker_directory_failed")
            self._away = True
        else:
            self._take(table)
        self._seen_at = began

    def _take(self, table: RoutingTable) -> None:
        now = self._clock()
        if self._away:
            # Workers could not pulse either: their rows look old until each has come back.
            self._lenient_until = now + self._settings.ingress_gone_seconds
            self._away = False
            log.info("worker_directory_moves_again")
        if now < self._lenient_until:
            fresh = {ingress.worker for ingress in table.ingresses}
            kept = tuple(ingress for ingress in self._table.ingresses if ingress.worker not in fresh)
            table = replace(table, ingresses=table.ingresses + kept)
        self._table = table
        self._read_at = now
        self._since.clear()
        self._shut.clear()
        of_name: dict[str, list[Ingress]] = {}
        for ingress in table.ingresses:
            for name in ingress.serves:
                of_name.setdefault(name, []).append(ingress)
        self._of_name = {name: tuple(found) for name, found in of_name.items()}
        self._news.set()
        self._news = asyncio.Event()
        listed = {ingress.worker for ingress in table.ingresses}
        self._breakers = {worker: breaker for worker, breaker in self._breakers.items() if worker in listed}

    @property
    def age_seconds(self) -> float | None:
        """How old the table is; None if none was read yet."""
        return None if self._read_at is None else self._clock() - self._read_at

    @property
    def ingresses(self) -> tuple[Ingress, ...]:
        """All ingresses of the table."""
        return self._table.ingresses

    @property
    def registry(self) -> Registry:
        """Every model of the table, served or not, and what each name stands for."""
        return self._table.registry

    async def knows(self, asked: str) -> bool:
        """Whether this stands for a model; what is not in the table is looked for once more.

        Raises Unavailable while that can't be known.
        """
        if not self.registry.knows(asked):
            await self._look_again()
        if self.registry.knows(asked):
            return True
        if self._read_at is None or self._away:
            raise Unavailable("The database is away; try again shortly.")
        return False

    async def target(self, asked: str, place: float) -> ModelTarget:
        """What a call's model stands for, for whoever stands at this place of an alias (0 to below 100).

        Where nobody serves the version that an alias picked, it is another one of its versions that is served. Where
        nobody serves any, the table is looked at once more: a worker may be ready since. Raises UnknownTarget.
        """
        target = self._served(asked, place)
        if target.queue in self._of_name:
            return target
        await self._look_again()
        return self._served(asked, place)

    async def targets(self, asked: Sequence[str], place: float) -> tuple[ModelTarget, ...]:
        """What the members of an ensemble stand for; a name that is none any more stands for itself, unserved.

        One that nobody serves is nothing to wait for while another is served: only where none is, the table is looked
        at once more.
        """
        found = self._all_served(asked, place)
        if not any(target.queue in self._of_name for target in found):
            await self._look_again()
            found = self._all_served(asked, place)
        return found

    def _all_served(self, asked: Sequence[str], place: float) -> tuple[ModelTarget, ...]:
        def target(one: str) -> ModelTarget:
            try:
                return self._served(one, place)
            except UnknownTarget:
                return ModelTarget(one, one, None)

        return tuple(map(target, asked))

    async def _look_again(self) -> None:
        """Read a table that is younger than this call, unless the database is away; five times a second at most."""
        if self._away:
            return
        asked_at = self._clock()
        await asyncio.sleep(self._seen_at + _LEAST_SECONDS_BETWEEN - asked_at)
        for _ in range(2):  # one that was under way may have begun before what is looked for was there
            if self._seen_at < asked_at:
                await self.refresh()

    def _served(self, asked: str, place: float) -> ModelTarget:
        target = self.registry.resolve(asked, place)
        if target.queue in self._of_name:
            return target
        others = self.registry.others(asked, target)
        return next((other for other in others if other.queue in self._of_name), target)

    def serves(self, queue: str) -> bool:
        """Whether a live worker of this version takes calls, as far as is known here."""
        return queue in self._of_name

    def pooled(self, queue: str) -> Servable | None:
        """The live pool that may serve this version, if there is one."""
        return self._table.pooled.get(queue)

    async def news(self) -> None:
        """Wait for the next table."""
        await self._news.wait()

    def refuses(self, fingerprint: bytes) -> bool:
        """Whether a call took engines down lately, as all API processes know."""
        return fingerprint in self._table.refused

    def caches(self, tenant: str) -> bool:
        """Whether this tenant's calls use the shared cache unless they say otherwise."""
        return tenant in self._table.caching

    def priced(self, model: str) -> bool:
        """Whether a model has a price."""
        return model in self._table.priced

    def price(self, model: str) -> Price | None:
        """What a model costs now; None: it has no price."""
        return self._table.priced.get(model)

    def promised_seconds(self, queue: str) -> float | None:
        """The time to first token that a version's calls are promised; None: nothing is."""
        return self._table.promised.get(queue)

    def revision(self, model: str) -> str:
        """What makes answers of this model its own; empty if that is not known, or its workers don't agree."""
        revisions = {ingress.revision for ingress in self._of_name.get(model, ())}
        return revisions.pop() if len(revisions) == 1 else ""

    def lacks(self, model: str, lack: EngineLack) -> bool:
        """Whether a model has engines, and none of them can do this."""
        there = self._of_name.get(model, ())
        return bool(there) and all(lack in ingress.lacks for ingress in there)

    # Ingresses.

    def choose(
        self, model: str, key: bytes | None, excluded: Collection[UUID] = (), only: Collection[UUID] | None = None
    ) -> Ingress | None:
        """The ingress that a call of this model is offered to; None if none (of `only`, if they are named) is open."""
        now = self._clock()
        there = [ingress for ingress in self._of_name.get(model, ()) if self._may_be_asked(ingress, now)]
        if only is not None:
            there = [ingress for ingress in there if ingress.worker in only]
        chosen = routing.choose(there, key, self._corrections(there), self._settings.region, excluded, self._chance)
        if chosen is not None:
            self._note_try(chosen.worker, now)
        return chosen

    def last_resort(self, model: str, excluded: Collection[UUID] = ()) -> Ingress | None:
        """An ingress that is closed, if no ingress of this model is open: its worker may let a call in all the same."""
        now = self._clock()
        there = self._of_name.get(model, ())
        if any(ingress.load.open and ingress.worker not in self._shut for ingress in there):
            return None
        closed = [
            ingress for ingress in there if ingress.worker not in excluded and self._breaker(ingress.worker).allows(now)
        ]
        mine = self._corrections(closed)
        chosen = min(closed, key=lambda ingress: routing.calls(ingress, mine) / routing.slots(ingress), default=None)
        if chosen is not None:
            self._note_try(chosen.worker, now)
        return chosen

    def _note_try(self, worker: UUID, now: float) -> None:
        if worker in self._breakers:
            self._breakers[worker] = self._breakers[worker].tried(now)

    def has_room(self, workers: Collection[UUID]) -> bool:
        """Whether one of these workers has a free slot, as far as is known here."""
        there = [ingress for ingress in self._table.ingresses if ingress.worker in workers]
        mine = self._corrections(there)
        return any(routing.calls(ingress, mine) < routing.slots(ingress) for ingress in there)

    def _may_be_asked(self, ingress: Ingress, now: float) -> bool:
        return ingress.worker not in self._shut and self._breaker(ingress.worker).allows(now)

    def _breaker(self, worker: UUID) -> Breaker:
        return self._breakers.get(worker, CLOSED)

    def _corrections(self, there: Collection[Ingress]) -> dict[UUID, int]:
        """What is to be added to the calls that ingresses said; never below what this process knows to be inside."""
        return {
            ingress.worker: max(
                self._since.get(ingress.worker, 0), self._inside.get(ingress.worker, 0) - ingress.load.calls
            )
            for ingress in there
        }

    # What calls find out.

    def sent(self, worker: UUID) -> float:
        """A call of ours goes in; when, for `failed`."""
        self._inside[worker] = self._inside.get(worker, 0) + 1
        self._since[worker] = self._since.get(worker, 0) + 1
        return self._clock()

    def ended(self, worker: UUID) -> None:
        """It came out."""
        self._since[worker] = self._since.get(worker, 0) - 1
        left = self._inside[worker] - 1
        if left:
            self._inside[worker] = left
        else:
            del self._inside[worker]

    def shut(self, worker: UUID) -> None:
        """It refused a call for a reason that holds for others too: none is offered until the next table."""
        self._shut.add(worker)

    def failed(self, worker: UUID, sent_at: float) -> None:
        """It could not be reached by a call that was sent then, or its engine died with it."""
        breaker = self._breaker(worker).failed(sent_at, self._clock())
        if breaker.pause_seconds and not self._breaker(worker).pause_seconds:
            log.warning("ingress_breaker_opened", worker=str(worker), seconds=breaker.pause_seconds)
        self._breakers[worker] = breaker

    def worked(self, worker: UUID) -> None:
        """It answered a call."""
        if worker in self._breakers:
            del self._breakers[worker]
