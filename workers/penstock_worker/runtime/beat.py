"""The beat: names the leases that this process holds, every few seconds, from a thread and a connection of its own.

A holder distrusts itself before the database does: a lease is trusted for nine tenths of its time, counted from before
the claim or beat that prolonged it was sent, on a clock that also runs while the machine is suspended. Without trust
nothing new is asked and nothing is recorded, until a beat says whose the lease is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from penstock.domain.api_errors import Unavailable
from penstock.domain.fleet.worker import WorkerOrders
from penstock.domain.work.batch import BatchState
from penstock.domain.work.holder import Holder
from penstock.service.admin import tally
from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock.settings.leases import LeaseSettings

log = structlog.get_logger()

_TRUSTED_PART: Final = 0.9


def now() -> float:
    """Seconds on the clock that leases are trusted by."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Grip:
    """One lease in this process's hands, and what the beat heard about it."""

    def __init__(self, lease: int, trusted_until: float, news: threading.Event | None = None) -> None:
        self.lease = lease
        self.trusted_until = trusted_until
        self.lost = False
        self.closing: BatchState | None = None
        self.news = news or threading.Event()
        """Set when there is something new to look at: the lease is lost, the batch closes, the process ends."""

    @property
    def trusted(self) -> bool:
        """Whether the holder may act on it now."""
        return not self.lost and now() < self.trusted_until


class Beat:
    """A thread that beats from `with` to its end."""

    def __init__(self, db: Database, holder: Holder, settings: LeaseSettings) -> None:
        self._db = db
        self._holder = holder
        self._settings = settings
        self._trusted_seconds = settings.lease_seconds * _TRUSTED_PART
        self._grips: dict[int, Grip] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beat", daemon=True)
        self.draining = False
        """The process ends."""
        self.drained = False
        """An operator's order: nothing new is taken."""
        self.restarting = False
        """The engine is about to end: nothing new is taken, and what is held is given back."""
        self.claims = threading.Lock()
        """Held from the look whether work may be taken until what was claimed is held: an order knows of all claims
        before it, and a beat takes none for forgotten that is on its way."""
        self.on_orders: Callable[[WorkerOrders], None] = lambda orders: None
        """Told with each beat what stands; must be quick."""

    def __enter__(self) -> Beat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @contextmanager
    def holding(self, lease: int, asked_at: float, news: threading.Event | None = None) -> Iterator[Grip]:
        """Name this lease in every beat meanwhile; its claim was first sent at `asked_at` (by `now`).

        Several grips may share their `news`.
        """
        grip = Grip(lease, asked_at + self._trusted_seconds, news)
        with self._lock:
            self._grips[lease] = grip
        if self.gives_back:
            grip.news.set()
        try:
            yield grip
        finally:
            with self._lock:
                del self._grips[lease]

    @property
    def holds(self) -> bool:
        """Whether anything is in hand."""
        with self._lock:
            return bool(self._grips)

    @property
    def takes_work(self) -> bool:
        """Whether anything new may be claimed."""
        return not (self.draining or self.drained or self.restarting)

    @property
    def gives_back(self) -> bool:
        """Whether what is held must be ended soon, or given back."""
        return self.draining or self.restarting

    def drain(self) -> None:
        """Tell every holder that the process is about to end."""
        log.info("worker_ending", kind=self._holder.kind)
        self.draining = True
        self._wake()

    def rest(self, drained: bool) -> None:
        """Let nothing new be claimed, or let it again; returns once every claim from before is through."""
        with self.claims:
            self.drained = drained

    def restart(self, begins: bool) -> None:
        """Let everything be given back and nothing be claimed until this ends; returns as `rest` does."""
        with self.claims:
            self.restarting = begins
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            for grip in self._grips.values():
                grip.news.set()

    def _run(self) -> None:
        while not self._stop.wait(self._settings.beat_seconds):
            try:
                self.once()
                tally.write_blob_errors(self._db)
            except Unavailable as error:
                log.warning("beat_unheard", error=error.message)
            except Exception:
                log.exception("beat_failed")

    def once(self) -> None:
        """Beat, and pass on what was heard; raise Unavailable."""
        with self._lock:
            named = dict(self._grips)
        asked_at = now()
        heard = self._db.run(work.beat, self._holder, list(named), self._settings)
        for lease in heard.lost:
            with self._lock:
                if lease not in self._grips:  # it was settled while this beat was under way
                    continue
            log.warning("lease_lost", lease=lease)
            named[lease].lost = True
            named[lease].news.set()
        for lease in named.keys() - heard.lost:
            named[lease].trusted_until = asked_at + self._trusted_seconds
        for lease, finish_as in heard.closing.items():
            named[lease].closing = finish_as
            named[lease].news.set()
        self.on_orders(heard.orders)
        if heard.forgotten and self.claims.acquire(blocking=False):  # else it may be of the claim that is under way
            try:
                self._release(heard.forgotten)
            finally:
                self.claims.release()

    def _release(self, forgotten: Iterable[int]) -> None:
        for lease in forgotten:
            with self._lock:
                if lease in self._grips:  # its claim was answered late, while this beat was under way
                    continue
            log.warning("lease_forgotten", lease=lease)
            self._db.run(work.release, lease, "forgotten")
