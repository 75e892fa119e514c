"""The batch watch: who watches batches as they run; one look a second at the database serves all of a process.

However many watch, and whatever they watch, a look is one statement (and a few about pools, where a version is asleep).
A watcher has the latest news and no queue: one that is slow misses some, and holds nothing up.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

from penstock.domain.api_errors import NotFound
from penstock.domain.work.batch import Batch, BatchKey
from penstock.domain.work.batch_pace import BatchPace, BatchSpeed
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.service.views.batch_list import with_outlooks
from penstock.service.views.batch_view import BatchView
from penstock.settings import Settings
from penstock.store.batches import batch_lists

LOOK_SECONDS: Final = 1.0
OUTLOOK_SECONDS: Final = 5.0
"""So often it is looked what goes before batches: that moves slowly, and costs more the more waits."""
MOST_OPEN: Final = 50
"""Batches of a tenant's page of open ones."""

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True)
class BatchNews:
    """A batch or job as it is now, and how fast it is; None until it was seen twice."""

    view: BatchView
    speed: BatchSpeed | None


class Watching(Generic[T]):
    """One watcher: `next` gives what is new, until it has `ended`."""

    def __init__(self, none: NotFound | None) -> None:
        self._none = none
        """What is raised if there is no such thing; None where an empty page is news."""
        self._news: T | None = None
        self._error: Exception | None = None
        self._last = False
        self._new = asyncio.Event()

    @property
    def ended(self) -> bool:
        """Nothing more will come."""
        return self._last and not self._new.is_set()

    async def next(self, seconds: float) -> T | None:
        """The latest news that this watcher has not had, as soon as there is any; None after so long without.

        Raises NotFound, and what the first look raised (Unavailable); later ones that fail are passed over.
        """
        with suppress(TimeoutError):
            await asyncio.wait_for(self._new.wait(), seconds)
        if not self._new.is_set():
            return None
        self._new.clear()
        if self._error is not None:
            raise self._error
        news, self._news = self._news, None
        return news

    def leave(self) -> None:
        """End it: the process is about to stop, for instance."""
        self._last = True
        self._new.set()

    def tell(self, news: T, *, last: bool) -> None:
        """There is news; what was not had yet is replaced."""
        self._news, self._last, self._none = news, last, None
        self._new.set()

    def gone(self) -> None:
        """There is no such thing, or no more."""
        self._error = self._none
        self.leave()

    def fail(self, error: Exception) -> None:
        """The first look failed."""
        if self._news is None and self._none is not None:
            self._error = error
            self.leave()


class _Topic(Generic[T]):
    """What several may watch; there as long as one does."""

    def __init__(self) -> None:
        self.watchers: set[Watching[T]] = set()
        self.latest: T | None = None
        self.last = False

    def publish(self, news: T, *, last: bool = False) -> None:
        if news != self.latest:
            self.latest, self.last = news, last
            for one in self.watchers:
                one.tell(news, last=last)


class BatchWatch:
    """One process's, on its event loop."""

    def __init__(self, db: AsyncDatabase, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._settings = settings
        self._clock = clock
        self._batches: dict[BatchKey, _Topic[BatchNews]] = {}
        self._pages: dict[tuple[str, str], _Topic[tuple[BatchNews, ...]]] = {}
        self._looked_at = self._outlook_at = -OUTLOOK_SECONDS
        self._looking: asyncio.Task[None] | None = None
        self._news: dict[str, BatchNews] = {}
        self._paces: dict[str, BatchPace] = {}

    @asynccontextmanager
    async def batch(self, tenant: str, kind: str, id: str) -> AsyncIterator[Watching[BatchNews]]:
        """Watch one batch or job until it has ended or is deleted; its `next` raises NotFound if there is none."""
        watching: Watching[BatchNews] = Watching(NotFound(kind, id, param=f"{kind}_id"))
        async with self._watched(self._batches, BatchKey(tenant, kind, id), watching):
            yield watching

    @asynccontextmanager
    async def open_page(self, tenant: str, kind: str) -> AsyncIterator[Watching[tuple[BatchNews, ...]]]:
        """Watch the newest `MOST_OPEN` batches (or jobs) of a tenant that have not ended; it has no end."""
        watching: Watching[tuple[BatchNews, ...]] = Watching(NotFound("tenant", tenant))
        async with self._watched(self._pages, (tenant, kind), watching):
            yield watching

    @asynccontextmanager
    async def _watched(self, topics: dict[K, _Topic[T]], key: K, watching: Watching[T]) -> AsyncIterator[None]:
        topic = topics.setdefault(key, _Topic())
        topic.watchers.add(watching)
        if topic.latest is not None:
            watching.tell(topic.latest, last=topic.last)
        else:
            self._outlook_at = -OUTLOOK_SECONDS
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_while_any_watches())
        try:
            yield
        finally:
            topic.watchers.discard(watching)
            if not topic.watchers and topics.get(key) is topic:
                del topics[key]

    async def close(self) -> None:
        """Stop looking; whoever still watches hears of the end."""
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
        for topic in self._topics():
            for one in topic.watchers:
                one.leave()

    def _topics(self) -> list[_Topic[Any]]:
        return [*self._batches.values(), *self._pages.values()]

    async def _look_while_any_watches(self) -> None:
        while self._batches or self._pages:
            await asyncio.sleep(max(0.0, self._looked_at + LOOK_SECONDS - self._clock()))
            keys, pages = list(self._batches), list(self._pages)
            if not keys and not pages:
                return
            self._looked_at = self._clock()
            outlook = self._looked_at - self._outlook_at >= OUTLOOK_SECONDS
            if outlook:
                self._outlook_at = self._looked_at
            try:
                views = await self._db.autocommit(_look, keys, pages, self._settings, outlook)
            except Exception as error:  # those who have news go on with it; whoever has none hears of it
                self._fail(error)
                continue
            self._tell(keys, pages, self._taken_in(views, outlook))

    def _fail(self, error: Exception) -> None:
        for topic in self._topics():
            if topic.latest is None:
                for one in topic.watchers:
                    one.fail(error)

    def _taken_in(self, views: Iterable[BatchView], outlook: bool) -> list[BatchNews]:
        """Views with their speed; without an outlook they keep the one before, unless they moved since."""
        paces, news = {}, []
        for view in views:
            one, before = view.batch, self._news.get(view.batch.id)
            pace = paces[one.id] = self._paces.get(one.id) or BatchPace()
            pace.note(one.completed + one.failed, one.usage.output_tokens, self._looked_at)
            if not outlook and before is not None:
                if _moves_alike(before.view.batch, one):
                    view = dataclasses.replace(view, waiting=before.view.waiting, expected=before.view.expected)
                else:
                    self._outlook_at = -OUTLOOK_SECONDS
            news.append(BatchNews(view, pace.now()))
        self._paces, self._news = paces, {one.view.batch.id: one for one in news}
        return news

    def _tell(self, keys: Iterable[BatchKey], pages: Iterable[tuple[str, str]], news: list[BatchNews]) -> None:
        by_key = {BatchKey(one.view.batch.tenant, one.view.batch.kind, one.view.batch.id): one for one in news}
        for key in keys:
            if (topic := self._batches.get(key)) is None:
                continue
            if (found := by_key.get(key)) is not None:
                topic.publish(found, last=found.view.batch.ended)
            else:
                for one in topic.watchers:
                    one.gone()
        for tenant, kind in pages:
            if (page := self._pages.get((tenant, kind))) is not None:
                theirs = [one for key, one in by_key.items() if key[:2] == (tenant, kind)]
                page.publish(tuple(one for one in theirs if not one.view.batch.ended)[:MOST_OPEN])


def _moves_alike(before: Batch, now: Batch) -> bool:
    return (before.state, before.finish_as, before.lane, before.deadline) == (
        now.state,
        now.finish_as,
        now.lane,
        now.deadline,
    )


def _look(
    tx: Transaction, keys: list[BatchKey], pages: list[tuple[str, str]], settings: Settings, outlook: bool
) -> list[BatchView]:
    gone = timedelta(seconds=settings.worker_gone_seconds)
    seen = batch_lists.watched(tx.conn, keys, pages, each=MOST_OPEN, gone=gone, outlook=outlook)
    return with_outlooks(tx, seen, settings) if outlook else [BatchView(one) for one in seen.batches]
