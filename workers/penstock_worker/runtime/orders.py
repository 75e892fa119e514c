"""Orders: what an operator tells this process, heard with its beat: drain, undrain, restart the engine.

They are obeyed one after the other in a thread of their own, since each may have to wait for what is held. A restart is
done once for its number, and told as done when the engine is ready again. All orders end with the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

import structlog

from penstock.domain.api_errors import Unavailable
from penstock.domain.fleet.worker import WorkerOrders
from penstock.domain.work.holder import Holder
from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock_worker.runtime.beat import Beat
from penstock_worker.runtime.patience import insist
from penstock_worker.runtime.worker_status import WorkerStatus

log = structlog.get_logger()

_LOOK_SECONDS: Final = 0.05


class RestartedEngine(Protocol):
    """The engine that is ended and started again."""

    def restart(self) -> int: ...


class RestartedIngress(Protocol):
    """Where calls come in to it."""

    @property
    def holds(self) -> bool: ...
    def restart(self, begins: bool) -> None: ...


class Orders:
    """A process's ear for orders, from `with` to its end. `take(False)` stops all that takes new work but claims.

    Without an engine it is never told to restart one.
    """

    def __init__(
        self,
        db: Database,
        beat: Beat,
        holder: Holder,
        status: WorkerStatus,
        take: Callable[[bool], None],
        engine: tuple[RestartedEngine, RestartedIngress] | None = None,
        gives_back: bool = False,
    ) -> None:
        """`gives_back`: drained, it gives back what it holds and does not end it, since another waits for its place."""
        self._db = db
        self._beat = beat
        self._holder = holder
        self._status = status
        self._take = take
        self._engine = engine
        self._gives_back = gives_back
        self._heard = WorkerOrders()
        self._under_way: tuple[int, int] | None = None
        """The number of a restart, and of the engine's start that it led to."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="orders")

    def __enter__(self) -> Orders:
        self._beat.on_orders = self.hear
        return self

    def __exit__(self, *_: object) -> None:
        self._beat.on_orders = lambda orders: None
        self._thread.shutdown(wait=True)

    def hear(self, orders: WorkerOrders) -> None:
        """Begin what is new among the orders that stand; returns at once."""
        before, self._heard = self._heard, orders
        if orders.drain is not before.drain:
            self._obey(partial(self._rest, orders.drain))
        if orders.restart > before.restart:
            self._obey(partial(self._restart, orders.restart))

    def engine_is_ready(self, generation: int) -> None:
        """A start of the engine is ready, and Postgres knows; returns at once."""
        self._obey(partial(self._end_restart, generation))

    def _obey(self, do: Callable[[], None]) -> None:
        def obey() -> None:
            try:
                if not self._beat.draining:
                    do()
            except Exception:
                log.exception("order_failed")

        with suppress(RuntimeError):  # its thread has ended: the process ends, and all orders with it
            self._thread.submit(obey)

    def _rest(self, drained: bool) -> None:
        log.info("drained" if drained else "undrained", kind=self._holder.kind, model=self._holder.model)
        self._beat.rest(drained)
        self._take(not drained)
        self._status.orders_changed()
        if drained and self._gives_back and self._engine:
            self._let_go(self._engine[1])

    def _let_go(self, ingress: RestartedIngress) -> None:
        """What is held is given back or has its grace; returns once nothing is."""
        self._beat.restart(True)
        try:
            ingress.restart(True)
            while (self._beat.holds or ingress.holds) and not self._beat.draining:
                time.sleep(_LOOK_SECONDS)
        finally:
            ingress.restart(False)
            self._beat.restart(False)

    def _restart(self, number: int) -> None:
        """Nothing new comes, what is held is given back or has its grace, and the engine is started again."""
        assert self._engine is not None, "only who has an engine is told to restart it"
        engine, ingress = self._engine
        log.info("engine_restart", model=self._holder.model, number=number)
        self._beat.restart(True)
        try:
            self._take(False)  # until the engine is ready: hints are for others meanwhile
            ingress.restart(True)
            self._status.restarting()
            while (self._beat.holds or ingress.holds) and not self._beat.draining:
                time.sleep(_LOOK_SECONDS)
            if not self._beat.draining:
                self._under_way = number, engine.restart()
        finally:
            ingress.restart(False)
            self._beat.restart(False)

    def _end_restart(self, generation: int) -> None:
        if self._under_way is None or generation < self._under_way[1]:
            return
        number, self._under_way = self._under_way[0], None
        if not self._beat.drained:
            self._take(True)
        with suppress(Unavailable):  # the process ends
            insist(lambda: self._db.run(work.restarted, self._holder, number), self._beat, grace_seconds=0)
