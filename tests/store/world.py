"""A small world over a real Postgres: a tenant, batches in any state, workers, and the invariants that always hold."""

from __future__ import annotations

import asyncio
import uuid
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import text
from store import as_folder, as_holder, invariants

from penstock.domain.reuse import ReuseSource
from penstock.domain.work.batch import Batch, BatchState
from penstock.domain.work.hint import Hint
from penstock.domain.work.holder import Holder
from penstock.domain.work.lane import LANES, Lane
from penstock.domain.work.slice import Claim, Cut, FoldCut
from penstock.domain.work.terms import Terms
from penstock.formats import output
from penstock.formats.output import Record
from penstock.service.admin import models, prices
from penstock.service.control import cancel, steer
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import AsyncDatabase, Database, Transaction
from penstock.service.intake import submit
from penstock.service.intake.small_job_intake import SmallJobIntake
from penstock.service.lifecycle import dispatch, work
from penstock.service.models.pins import LineModel
from penstock.service.planning import validate
from penstock.service.planning.scan import Scan
from penstock.service.results import assemble
from penstock.settings import Settings
from penstock.store.accounts import keys
from penstock.store.batches import batches, files
from penstock.store.engine import async_engine, sync_engine

CHAT = "/v1/chat/completions"
MODEL = "tiny"
_BODY = b'{"model":"tiny"}'
ANSWER = msgspec.json.encode({"usage": {"prompt_tokens": 3, "completion_tokens": 2}})
EMPTY = msgspec.json.encode(
    {"usage": {"prompt_tokens": 3, "completion_tokens": 2}, "choices": [{"finish_reason": "length", "text": ""}]}
)


class World:
    """Everything goes through the service's own functions; SQL is for looking, and for turning the clock."""

    def __init__(self, database_url: str, settings: Settings) -> None:
        self.settings = settings
        self.said: list[Hint] = []
        self.db = Database(sync_engine(database_url, connections=6), self.said.extend)
        self._runner = asyncio.Runner()
        self._async = AsyncDatabase(async_engine(database_url, connections=1), self.said.extend)
        self._people()

    def _people(self) -> None:
        self.db.run(lambda tx: keys.ensure_tenant(tx.conn, "acme", "acme"))
        self.db.run(models.add, MODEL)
        self.price("2", "1", "3", "0.5")
        self.keeper = Holder(uuid.uuid4(), "io", None, "host", 1)
        self.db.run(work.register, self.keeper, "ready", 0)

    def price(self, input: str, cached: str, output: str, gpu: str) -> None:
        """What the model's work costs from now on."""
        self.db.run(
            prices.set_price, MODEL, input=input, cached_input=cached, output=output, gpu_second=gpu, currency="EUR"
        )

    def clear(self) -> None:
        """Begin again in the same database."""
        kept = ("alembic_version", "legal_moves")
        tables = [row.tablename for row in self.rows("select tablename from pg_tables where schemaname = 'public'")]
        self.sql(f"truncate {', '.join(name for name in tables if name not in kept)}")
        self.said.clear()
        self._people()

    def close(self) -> None:
        """Close the connections."""
        self._runner.run(self._async.close())
        self._runner.close()
        self.db.close()

    # Batches.

    def tenant(self, tenant: str, *, weight: float = 1.0) -> None:
        """One more tenant; `acme` is there."""
        self.db.run(lambda tx: keys.ensure_tenant(tx.conn, tenant, tenant))
        if weight != 1.0:
            self.sql("update tenants set weight = :weight where id = :tenant", weight=weight, tenant=tenant)

    def validating(self, *, lane: Lane = Lane.STANDARD, window: str = "24h", tenant: str = "acme") -> str:
        """A batch over a file that nobody wrote, waiting to be validated."""
        self.tenant(tenant)

        def create(tx: Transaction) -> str:
            file, key = fresh("file-"), f"{tenant}/files/{uuid.uuid4().hex}"
            files.intend(tx.conn, key)
            files.insert(
                tx.conn,
                tenant,
                id=file,
                purpose="batch",
                filename="in.jsonl",
                bytes=1,
                sha256=bytes(32),
                blob_key=key,
                ttl=None,
            )
            return submit.create_batch(tx, tenant, file, Terms(CHAT, lane, window), None, self.settings).id

        return self.db.run(create)

    def claim_batch(self, batch: str, kind: str) -> tuple[Batch, int]:
        """Take a batch's validation or assembly."""
        taken = self.db.run(work.claim_batch, self.keeper, batch, kind, uuid.uuid4(), self.settings)
        assert taken is not None
        return taken[0], taken[1].lease

    def begin(self, tx: Transaction, found: Batch, lease: int, sizes: Sequence[int], model: str = MODEL) -> None:
        """Validation's commit, of a plan with slices of so many lines."""
        self._begin(tx, found, lease, _cuts(sizes, model), model)

    def begin_folds(self, tx: Transaction, found: Batch, lease: int, sizes: Sequence[int], kind: str) -> None:
        """The same of lines that ask an ensemble of three members, all one model."""
        ensemble = as_folder.add(tx, kind, MODEL, MODEL, MODEL)
        chosen = [ensemble.chosen(member) for member in ensemble.definition.members]
        cuts = [FoldCut(tuple(replace(cut, chosen=one) for one in chosen)) for cut in _cuts(sizes, MODEL)]
        self._begin(tx, found, lease, cuts, MODEL)

    def _begin(self, tx: Transaction, found: Batch, lease: int, cuts: Sequence[Cut | FoldCut], model: str) -> None:
        lines = sum(cut.members[0].lines for cut in cuts)
        scanned = Scan(numbers=array("I", range(1, lines + 1)), models=[LineModel(model)])
        key = f"{found.tenant}/plans/{uuid.uuid4().hex}"
        files.intend(tx.conn, key)
        validate.begin(tx, found, lease, scanned, key, list(cuts), self.settings)

    def batch(
        self,
        *sizes: int,
        lane: Lane = Lane.STANDARD,
        window: str = "24h",
        model: str = MODEL,
        tenant: str = "acme",
    ) -> str:
        """A batch in progress, with a plan whose slices have so many lines each."""
        id = self.validating(lane=lane, window=window, tenant=tenant)
        found, lease = self.claim_batch(id, "validate")
        self.db.run(self.begin, found, lease, sizes or (2,), model)
        return id

    def job(
        self,
        size: int = 2,
        *,
        lane: Lane = Lane.STANDARD,
        window: str = "24h",
        tenant: str = "acme",
        body: bytes = _BODY,
    ) -> str:
        """An inline job with so many requests."""

        async def create() -> str:
            asks = [submit.JobLine(f"q-{n}", body, "") for n in range(1, size + 1)]
            no_blobs: Any = None  # a small job writes none
            terms = Terms(CHAT, lane, window)
            intake = SmallJobIntake(self._async, self.settings)
            made = await submit.create_job(
                self._async, no_blobs, intake, tenant, asks, None, terms, None, self.settings
            )
            await intake.close()
            return made.id

        self.tenant(tenant)
        job = self._runner.run(create())
        self.db.run(dispatch.feed, MODEL, self.settings)
        return job

    def find(self, batch: str) -> Batch:
        """The batch as it is now."""
        found = self.db.run(lambda tx: batches.find(tx.conn, batch))
        assert found is not None
        return found

    def slices(self, batch: str) -> list[Any]:
        """The batch's slices as rows, by id."""
        return self.rows("select * from slices where batch = :batch order by id", batch=batch)

    def states(self, batch: str) -> list[str]:
        """The states of the batch's slices, by id."""
        return [row.state for row in self.slices(batch)]

    def events(self, batch: str) -> list[str]:
        """The types of the batch's events."""
        return [row.type for row in self.rows("select type from events where batch = :batch", batch=batch)]

    # Workers.

    def worker(self, model: str = MODEL, state: str = "ready") -> Holder:
        """A gpu worker that is registered; if it is ready, its model is fed."""
        holder = Holder(uuid.uuid4(), "gpu", model, "host", 1)
        self.db.run(work.register, holder, "starting", 8)
        self.db.run(work.mark, holder, state, self.settings)
        return holder

    def nonce(self) -> uuid.UUID:
        """A new one."""
        return uuid.uuid4()

    def claim(
        self,
        holder: Holder,
        *lanes: Lane,
        nonce: uuid.UUID | None = None,
        full: Mapping[Lane, frozenset[str]] | None = None,
    ) -> Claim | None:
        """Try to take a slice."""
        claims = self.claim_some(holder, *lanes, nonce=nonce, full=full, lines=1)
        return claims[0] if claims else None

    def claim_some(
        self,
        holder: Holder,
        *lanes: Lane,
        nonce: uuid.UUID | None = None,
        full: Mapping[Lane, frozenset[str]] | None = None,
        lines: int = 8,
    ) -> list[Claim]:
        """Try to take a slice, or several small ones of so many lines in all."""
        nonce = nonce or self.nonce()
        return self.db.run(work.claim, holder, list(lanes or LANES), nonce, self.settings, full, lines)

    def claimed(self, holder: Holder, *lanes: Lane, full: Mapping[Lane, frozenset[str]] | None = None) -> Claim:
        """Take a slice."""
        claim = self.claim(holder, *lanes, full=full)
        assert claim is not None, "nothing is ready"
        return claim

    def flush(self, claim: Claim, seq: int, *numbers: int, failed: bool = False) -> None:
        """Record answers of these lines."""
        found, micros = records(claim, *numbers, failed=failed), 1_000 * len(numbers)
        self.db.run(as_holder.flush, claim, seq, found, None, gpu_microseconds=micros)

    def finish(self, claim: Claim) -> None:
        """Answer all that is left of a claim, and settle it."""
        if left := remaining(claim):
            self.flush(claim, 1_000, *left)
        self.db.run(as_holder.settle, claim)

    def assemble(self, batch: str) -> None:
        """End a finalizing batch as its assembly does, without files."""
        found, lease = self.claim_batch(batch, "assemble")
        self.db.run(assemble.commit, found, lease, found.finish_as or BatchState.COMPLETED, None, None)

    def drain(self, batch: str) -> Batch:
        """Do what workers and keeper do until the batch has ended."""
        for _ in range(20):
            self.lapse(batch)
            self.db.run(dispatch.reap, batch)
            self.db.run(dispatch.move_on, batch)
            found = self.find(batch)
            if found.ended:
                return found
            if found.state is BatchState.PAUSED and found.finish_as is None:
                self.resume(batch, found.kind)
            if found.state is BatchState.VALIDATING:
                self.db.run(self.begin, *self.claim_batch(batch, "validate"), (2,))
            elif found.state is BatchState.FINALIZING:
                self.assemble(batch)
            for model in sorted(
                {row.model for row in self.slices(batch) if row.state in ("queued", "ready", "running")} - {None}
            ):
                helper = self.worker(model)
                while claim := self.claim(helper):
                    self.finish(claim)
            while one := self.db.run(as_folder.claim, self.keeper, batch, self.settings):
                self.db.run(as_folder.fold, one, self.settings)
        raise AssertionError(f"{batch} does not end: {self.find(batch)} {self.states(batch)}")

    # The clock.

    def lapse(self, batch: str) -> None:
        """The open leases of a batch are past their time."""
        self.sql(
            "update leases set expires_at = clock_timestamp() - interval '1 s' where batch = :batch"
            " and closed_at is null",
            batch=batch,
        )

    def overdue(self, batch: str) -> None:
        """The batch's deadline has passed."""
        self.sql("update batches set deadline = clock_timestamp() - interval '1 s' where id = :batch", batch=batch)

    def expire(self, batch: str) -> bool:
        """The keeper closes an overdue batch."""
        self.overdue(batch)
        assert batch in self.db.run(dispatch.overdue)
        return self.db.run(cancel.expire, batch)

    def cancel(self, batch: str, kind: str = "batch") -> Batch:
        """Its tenant cancels it."""
        return self.db.run(cancel.cancel, self.find(batch).tenant, kind, batch)

    def pause(self, batch: str, kind: str = "batch") -> Batch:
        """Its tenant pauses it."""
        return self.db.run(steer.pause, self.find(batch).tenant, kind, batch)

    def resume(self, batch: str, kind: str = "batch") -> Batch:
        """Its tenant resumes it."""
        return self.db.run(steer.resume, self.find(batch).tenant, kind, batch, self.settings)

    def move(self, batch: str, lane: Lane | None = None, window: str | None = None) -> Batch:
        """Its tenant gives it another lane or window."""
        found = self.find(batch)
        return self.db.run(
            steer.change, found.tenant, found.kind, batch, self.settings, lane=lane, completion_window=window
        )

    def reap(self, batch: str) -> int:
        """All its holders fall silent, and the keeper frees what they held."""
        self.lapse(batch)
        return self.db.run(dispatch.reap, batch)

    # SQL by hand.

    def sql(self, statement: str, **values: Any) -> None:
        """Run a statement in a transaction of its own."""
        self.db.run(lambda tx: tx.conn.execute(text(statement), values))

    def rows(self, statement: str, **values: Any) -> list[Any]:
        """The rows of a query."""
        return self.db.run(lambda tx: tx.conn.execute(text(statement), values).all())

    def one(self, statement: str, **values: Any) -> Any:
        """The value of a query."""
        return self.rows(statement, **values)[0][0]

    def check(self) -> None:
        """Raise unless every invariant holds in the whole database."""
        self.db.run(lambda tx: invariants.check(tx.conn))


def remaining(claim: Claim) -> list[int]:
    """The lines of a claim that nobody recorded yet."""
    asked = range(claim.first_line, claim.last_line + 1) if claim.picked is None else sorted(claim.picked)
    return [n for n in asked if n not in claim.recorded]


def _cuts(sizes: Sequence[int], model: str) -> list[Cut]:
    """One after the other, of so many lines."""
    cuts, first = [], 1
    for size in sizes:
        cuts.append(Cut(model, first * 100, size * 100, size, first, first + size - 1, size * 10))
        first += size
    return cuts


def _source(n: int) -> ReuseSource | None:
    """Every third answer was there already: of an equal line if it is odd, else in the shared cache."""
    return None if n % 3 else ReuseSource.EQUAL if n % 2 else ReuseSource.SHARED


def records(claim: Claim, *numbers: int, failed: bool = False) -> list[Record]:
    """Answers for these lines; even lines are empty, every third is reused: so both are counted everywhere."""
    status = 400 if failed else 200
    return [
        output.answered(claim.batch, n, f"q-{n}", status, "req", ANSWER if n % 2 else EMPTY, reused=_source(n))
        for n in numbers
    ]
