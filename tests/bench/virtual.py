"""A virtual hour: the platform's own scheduler on a real Postgres whose clock is the simulation's.

What feeds, claims, settles and promotes is the code that runs in production, statement by statement. Simulated are the
clock (functions of the same name stand before Postgres's own in the search path) and the workers: each serves one slice
at a time, at a fixed rate of tokens.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
from bench.order_jobs import Job
from sqlalchemy import text
from store import as_holder

from penstock.domain.work.holder import Holder
from penstock.domain.work.lane import LANES
from penstock.domain.work.new_batch import NewBatch
from penstock.domain.work.slice import Claim, Cut
from penstock.domain.work.terms import Terms
from penstock.formats.output import Record
from penstock.service.admin import models
from penstock.service.core.transaction import Database, Transaction
from penstock.service.lifecycle import dispatch, work
from penstock.settings import Settings
from penstock.stack import postgres
from penstock.store import migrate
from penstock.store.accounts import keys
from penstock.store.batches import batches
from penstock.store.engine import sync_engine
from penstock.store.work import slices

MODEL: Final = "virtual"
_BEGIN: Final = text("""
    update batches set state = 'in_progress', in_progress_at = now(), inline = true, model = :model, total = :total
    where id = :id""")
_BEGAN: Final = datetime(2030, 1, 1, tzinfo=UTC)
_TICK_SECONDS: Final = 5.0

_CLOCK: Final = """
create schema virtual;
create function virtual.clock_timestamp() returns timestamptz stable language sql as
    $$ select cast(current_setting('virtual.at') as timestamptz) $$;
create function virtual.now() returns timestamptz stable language sql as
    $$ select cast(current_setting('virtual.at') as timestamptz) $$
"""


@dataclass
class Outcome:
    """When each job ended, and what the scheduler did."""

    ended: dict[int, float]
    claims: int = 0
    promoted: int = 0
    """Claims of slices that had risen by a lane."""


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A Postgres of its own; gives its URL."""
    with postgres.running(folder / "pg", folder / "pgs", folder / "pg.log", durable=False) as url:
        yield url


class Hour:
    """One simulation: `with Hour(...) as hour: hour.run(jobs)`."""

    def __init__(self, postgres_url: str, settings: Settings, *, workers: int, rate: float) -> None:
        self._postgres_url, self._name = postgres_url, f"virtual_{uuid.uuid4().hex[:12]}"
        name = self._name
        with psycopg.connect(postgres_url, autocommit=True) as admin:
            admin.execute(f"create database {name}")  # type: ignore[arg-type]
            admin.execute(f"alter database {name} set search_path = virtual, pg_catalog, public")  # type: ignore[arg-type]
            admin.execute(f"alter database {name} set virtual.at = '{_BEGAN.isoformat()}'")  # type: ignore[arg-type]
        url = postgres_url.replace("/postgres?", f"/{name}?")
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(_CLOCK)  # before the tables: their defaults go by it too
        migrate.upgrade(url)
        # Nobody beats here, and no lease lapses.
        self._settings = settings.model_copy(update={"worker_gone_seconds": 1e6, "lease_seconds": 1e6})
        self._db = Database(sync_engine(url, connections=1), lambda hints: None)
        self._rate = rate
        self._at = 0.0
        self._jobs: dict[str, Job] = {}
        self._workers = [self._worker() for _ in range(workers)]

    def __enter__(self) -> Hour:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        with psycopg.connect(self._postgres_url, autocommit=True) as admin:
            admin.execute(f"drop database {self._name} with (force)")  # type: ignore[arg-type]

    def _do(self, use: Callable[..., Any], *args: Any) -> Any:
        """Run a use case at the simulation's time."""
        at = (_BEGAN + timedelta(seconds=self._at)).isoformat()

        def run(tx: Transaction) -> Any:
            tx.conn.execute(text("select set_config('virtual.at', :at, false)"), {"at": at})
            return use(tx, *args)

        return self._db.run(run)

    def _worker(self) -> Holder:
        holder = Holder(uuid.uuid4(), "gpu", MODEL, "virtual", 0)

        def enter(tx: Transaction) -> None:
            models.add(tx, MODEL)
            work.register(tx, holder, "starting", 1)
            work.mark(tx, holder, "ready", self._settings)
            rate = text("update workers set tokens_per_second = :rate where id = :id")
            tx.conn.execute(rate, {"rate": self._rate, "id": holder.id})

        self._do(enter)
        return holder

    def run(self, jobs: Sequence[Job]) -> Outcome:
        """Let the jobs come, and serve them until all have ended."""
        outcome, idle, running = Outcome({}), list(self._workers), []
        coming = sorted(jobs, key=lambda job: job.at, reverse=True)
        tick = 0.0
        while len(outcome.ended) < len(jobs):
            arrives = coming[-1].at if coming else float("inf")
            ends = running[0][0] if running else float("inf")
            self._at = min(arrives, ends, tick)
            if self._at == ends:
                _, _, worker, claim = heapq.heappop(running)
                self._settle(claim, outcome)
                idle.append(worker)
            elif self._at == arrives:
                self._do(self._submit, coming.pop())
            else:
                tick += _TICK_SECONDS
                for outlook, rises in self._do(dispatch.misplaced, self._settings):
                    self._do(dispatch.put, outlook, rises, self._settings)
                self._do(dispatch.feed_all, self._settings)
            while idle and (claims := self._do(work.claim, idle[-1], LANES, uuid.uuid4(), self._settings)):
                [claim] = claims
                outcome.claims += 1
                outcome.promoted += claim.lane is not self._jobs[claim.batch].lane
                heapq.heappush(running, (self._at + claim.tokens / self._rate, outcome.claims, idle.pop(), claim))
        return outcome

    def _submit(self, tx: Transaction, job: Job) -> None:
        """As an inline job is created, but in several slices."""
        id = f"job_{job.number}"
        self._jobs[id] = job
        keys.ensure_tenant(tx.conn, job.tenant, job.tenant)
        terms = Terms("/v1/chat/completions", job.lane, "1h")
        batches.insert(tx.conn, NewBatch(id, job.tenant, "job", terms, timedelta(seconds=job.window), input_key="-"))
        tx.conn.execute(_BEGIN, {"id": id, "model": MODEL, "total": len(job.slices)})
        cuts = [Cut(MODEL, 0, 1, 1, line, line, tokens) for line, tokens in enumerate(job.slices, 1)]
        slices.insert(tx.conn, id, cuts, job.lane, inline=b"x")
        dispatch.feed(tx, MODEL, self._settings)

    def _settle(self, claim: Claim, outcome: Outcome) -> None:
        def settle(tx: Transaction) -> bool:
            as_holder.flush(tx, claim, 1, [Record(claim.first_line, b"{}", False)], None)
            as_holder.settle(tx, claim)
            found = batches.find(tx.conn, claim.batch)
            return found is not None and found.ended

        if self._do(settle):
            outcome.ended[self._jobs[claim.batch].number] = self._at
