"""Pool rows: what a host asks and tells Postgres about its pool. Each is repeated while it is away.

So what is said twice must mean the same: the host goes on where Postgres is when it is back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, Final, ParamSpec, TypeVar
from uuid import UUID

import structlog

from penstock.domain.api_errors import NotFound, Unavailable
from penstock.domain.fleet.worker import Order, Worker, WorkerView
from penstock.domain.models.version import Version
from penstock.domain.pools import policy
from penstock.domain.pools.decision import PoolDecision
from penstock.domain.pools.pool import Pool
from penstock.domain.work.holder import Holder
from penstock.service.admin import health, workers
from penstock.service.core.transaction import Database, Transaction
from penstock.service.lifecycle import work
from penstock.service.models import versions
from penstock.service.pools import decisions, pools, residents, situations
from penstock.settings.dispatch import DispatchSettings

log = structlog.get_logger()

_NEWS_SECONDS: Final = 10.0
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Decided:
    """What the policy said."""

    versions: frozenset[str]
    """Queues of all that the pool may serve now."""
    number: int | None
    """Under which the switch is written down; None: all stay."""
    decision: PoolDecision


class PoolRows:
    """One pool's rows, for one host of it."""

    def __init__(
        self,
        db: Database,
        holder: Holder,
        pool: str,
        settings: DispatchSettings,
        again: Callable[[], None],
    ) -> None:
        """`again` waits a moment before a call is repeated, and raises if the host ends meanwhile."""
        self._db = db
        self._holder = holder
        self._pool = pool
        self._settings = settings
        self._again = again

    def pool(self) -> Pool | None:
        """The pool, if there is one of this name."""
        try:
            return self._insist(pools.get, self._pool)
        except NotFound:
            return None

    def decide(self, method_of: Callable[[PoolDecision], str]) -> Decided:
        """Ask the policy what is to be done, and enter that. Raises Unavailable, and NotFound if the pool is gone."""
        return self._db.run(_decide, self._pool, self._holder.id, method_of, self._settings)

    def version(self, queue: str) -> Version | None:
        """The version whose work is this queue's."""
        return self._insist(versions.of_queue, queue)

    def move(self, decision: int, state: str, error: str | None = None) -> bool:
        """Say how far a switch is; False if it has ended: cancelled, or while this host stood still."""
        return self._insist(decisions.move, decision, state, error)

    def end(self, number: int, decision: PoolDecision, seconds: float, error: str | None) -> None:
        """Say how a switch ended (done, unless there is an error), and what it took."""
        self._insist(_end, number, decision, seconds, error)

    def put(self, queue: str, state: str, member: UUID | None = None) -> None:
        """Say how a version stands on this host."""
        self._insist(residents.put, self._holder.id, queue, state, member)

    def unfit(self, queue: str, reason: str) -> None:
        """Say that a version can't be started here."""
        log.error("unfit", pool=self._pool, queue=queue, reason=reason)
        self._insist(pools.unfit, self._pool, queue, reason)

    def count(self, name: str) -> None:
        """Count a rare event for the whole platform."""
        self._insist(work.count, name)

    def gone(self, host: UUID | None = None) -> None:
        """Say that nothing is awake on this host, or on one before it; tried once. Raises Unavailable."""
        self._db.run(residents.gone, host or self._holder.id)

    def end_earlier(self, host: UUID) -> None:
        """Say that a host before this one has ended, which could not say so itself."""
        earlier = Holder(host, "pool", None, self._holder.host, 0)
        self._insist(residents.gone, host)
        self._insist(work.mark, earlier, "gone", self._settings)

    def workers(self) -> dict[int, Worker]:
        """The live gpu workers of this machine, by pid. Raises Unavailable."""
        found = self._db.run(health.live, self._settings.worker_gone_seconds)
        return {one.pid: one for one in found if one.kind == "gpu" and one.host == self._holder.host}

    def worker(self, id: UUID) -> WorkerView:
        """One worker as it stands. Raises Unavailable, and NotFound."""
        return self._db.run(workers.get, str(id))

    def order(self, id: UUID, what: Order) -> None:
        """Tell a member to drain, or to take work again. Raises NotFound, and Conflict if it has ended."""
        self._insist(workers.order, str(id), what)

    def _insist(self, use_case: Callable[Concatenate[Transaction, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        told_at = float("-inf")
        while True:
            try:
                return self._db.run(use_case, *args, **kwargs)
            except Unavailable as error:
                if time.monotonic() - told_at > _NEWS_SECONDS:
                    told_at = time.monotonic()
                    log.warning("waiting", error=error.message)
                self._again()


def _decide(
    tx: Transaction,
    pool: str,
    host: UUID,
    method_of: Callable[[PoolDecision], str],
    settings: DispatchSettings,
) -> Decided:
    """One transaction: whoever else decides about this pool waits for its row, and sees what was decided."""
    situation = situations.read(tx, pool, host, settings)
    decision = policy.decide(situation)
    number = None
    if decision.comes is not None:
        number = decisions.begin(tx, pool, host, decision, method_of(decision), settings, situation)
    return Decided(frozenset(situation.tokens_per_second), number, decision)


def _end(tx: Transaction, number: int, decision: PoolDecision, seconds: float, error: str | None) -> None:
    """Its end, and its counts: once, also after a broken commit."""
    if not decisions.end(tx, number, "failed" if error else "done", seconds, error):
        return
    if error:
        work.count(tx, "pool_switches_failed")
        return
    work.count(tx, f"pool_switches/{decision.why}")
    work.count(tx, f"pool_switch_seconds/{decision.why}", round(seconds))
