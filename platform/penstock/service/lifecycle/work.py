"""Work: what a holder does with slices: claim, beat, record, give back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from uuid import UUID

import penstock
from penstock.domain.accounts.tokens import Usage
from penstock.domain.api_errors import LeaseLost
from penstock.domain.engine_trouble import EngineTrouble
from penstock.domain.engines.profile import EngineProfile
from penstock.domain.fleet.worker import WorkerOrders
from penstock.domain.work.batch import Batch, BatchEnd, BatchState, LineError
from penstock.domain.work.holder import Holder
from penstock.domain.work.lane import Lane
from penstock.domain.work.lease import BatchLease
from penstock.domain.work.segment import Piece
from penstock.domain.work.slice import Claim
from penstock.formats import failure, plan
from penstock.formats.output import Record
from penstock.service.core.transaction import Transaction
from penstock.service.lifecycle import closing, dispatch, folds
from penstock.settings import Settings
from penstock.settings.dispatch import DispatchSettings
from penstock.settings.leases import LeaseSettings
from penstock.store.batches import batches, files
from penstock.store.fleet import models, orders, workers
from penstock.store.work import batch_leases, counts, leases, pending_batches, segments, slices, suspects


@dataclass(frozen=True)
class Beaten:
    """The database's answer to a beat: leases that are lost, leases whose batch is closing, with how, and orders."""

    lost: frozenset[int]
    closing: dict[int, BatchState]
    forgotten: tuple[int, ...]
    orders: WorkerOrders


def register(
    tx: Transaction, holder: Holder, state: str, slots: int, engine: EngineProfile | None = None, device: str = ""
) -> None:
    """Enter a process that starts, what its engine can do and computes on; its model becomes known."""
    if holder.model is not None:
        models.add(tx.conn, holder.model, "registered")
    workers.register(
        tx.conn,
        holder.id,
        kind=holder.kind,
        model=holder.model,
        state=state,
        slots=slots,
        host=holder.host,
        pid=holder.pid,
        version=penstock.__version__,
        engine=engine.name if engine else "",
        lacks=engine.lacks if engine else (),
        device=device,
        pool=holder.pool,
    )


def mark(
    tx: Transaction, holder: Holder, state: str, settings: DispatchSettings, trouble: EngineTrouble | None = None
) -> None:
    """Say that a process is ready, starting (with what keeps it from that), drained, draining or gone.

    A ready one is fed.
    """
    workers.mark(tx.conn, holder.id, state, trouble)
    if state == "ready" and holder.model is not None:
        dispatch.feed(tx, holder.model, settings)


def restarted(tx: Transaction, holder: Holder, number: int) -> None:
    """Note that a worker's engine is ready again after the restart of this number. May be repeated."""
    orders.restarted(tx.conn, holder.id, number)


def beat(tx: Transaction, holder: Holder, held: Sequence[int], settings: LeaseSettings) -> Beaten:
    """Prolong the named leases and hear orders. What was forgotten is to be released by the caller."""
    ttl = timedelta(seconds=settings.lease_seconds)
    heard = leases.beat(tx.conn, list(held), holder=holder.id, ttl=ttl)
    kept = {order.lease for order in heard if order.named}
    return Beaten(
        lost=frozenset(held) - kept,
        closing={order.lease: order.closing for order in heard if order.named and order.closing},
        forgotten=tuple(order.lease for order in heard if not order.named),
        orders=orders.read(tx.conn, holder.id),
    )


def claim(
    tx: Transaction,
    holder: Holder,
    lanes: Sequence[Lane],
    nonce: UUID,
    settings: Settings,
    full: Mapping[Lane, Collection[str]] | None = None,
    lines: int = 1,
) -> list[Claim]:
    """Take the best ready slice of the holder's model in these lanes; empty if there is none.

    Small jobs' slices come together, up to so many lines and a slice's tokens, each under a lease of its own.
    `full`: accounts that hold as many of the holder's slice slots as they may, by lane; they are passed over.
    """
    assert holder.model is not None, "only gpu workers claim slices"
    claims = leases.claim(
        tx.conn,
        holder.model,
        lanes,
        holder=holder.id,
        nonce=nonce,
        ttl=timedelta(seconds=settings.lease_seconds),
        promoted_share=settings.promoted_share,
        full=full or {},
        lines=lines,
        tokens=settings.slice_tokens,
    )
    if claims:  # with none left ready, the next hand would take a less urgent batch's while better ones are queued
        dispatch.feed(tx, holder.model, settings)
    return claims


def intend(tx: Transaction, key: str) -> None:
    """Note that a blob is about to be written, so that a sweep finds it if we die."""
    files.intend(tx.conn, key)


@dataclass(frozen=True)
class SliceAnswers:
    """What came back of one slice since its last segment, which was one less than `seq`."""

    claim: Claim
    seq: int
    records: Sequence[Record]
    blob_key: str | None = None
    """The blob that `framed` is in by now; without one it is in the segment's row."""
    gpu_microseconds: int = 0
    """The time that the engine's GPUs took for them."""

    @cached_property
    def framed(self) -> bytes:
        """A segment's bytes."""
        return b"".join(plan.frame(record.number, record.line) for record in self.records)

    @property
    def piece(self) -> Piece:
        """The segment's row."""
        usage = Usage()
        for record in self.records:
            usage += record.usage
        return Piece(
            self.claim.slice,
            self.claim.lease,
            self.seq,
            lines=[record.number for record in self.records],
            failed_lines=[record.number for record in self.records if record.failed],
            empty_lines=[record.number for record in self.records if record.empty],
            usage=usage,
            gpu_microseconds=self.gpu_microseconds,
            data_bytes=len(self.framed),
            blob_key=self.blob_key,
            data=None if self.blob_key else self.framed,
            errors=failure.counted([(record.number, record.line) for record in self.records if record.failed]),
        )


def record(tx: Transaction, answers: Sequence[SliceAnswers], ends: Sequence[Claim]) -> frozenset[int]:
    """Record answers of slices, and settle those that end with them: their batches move on here and now.

    Returns the leases that are lost; each is its own slice's affair, and the others are recorded. May be repeated.
    It comes several times a second, so the next claim feeds the model, not this.
    """
    if ends:
        batches.lock_all(tx.conn, sorted({claim.batch for claim in ends}))
    lost = {one.claim.lease for one in answers}
    if answers:
        lost -= segments.flush(tx.conn, [one.piece for one in answers])
    ending = [claim for claim in ends if claim.lease not in lost]
    if ending:
        settled = leases.settle(tx.conn, [(claim.slice, claim.lease) for claim in ending])
        lost |= {claim.lease for claim in ending} - settled
        folds.settled(tx, [claim for claim in ending if claim.lease in settled])
        closing.move_on_all(tx, sorted({claim.batch for claim in ending if claim.lease in settled}))
    return frozenset(lost)


def release(tx: Transaction, lease: int, how: str = "released") -> None:
    """Give back what a lease holds, without penalty; nothing happens if it is closed already."""
    batch = leases.batch_of(tx.conn, lease)
    if batch is None:
        return
    batches.lock(tx.conn, batch)
    leases.give_back(tx.conn, lease, how)
    closing.move_on(tx, batch)


def note_trial(tx: Transaction, claim: Claim, lines: Sequence[int]) -> None:
    """Note that these suspects are about to be asked; raise LeaseLost. May be repeated."""
    if not suspects.note(tx.conn, claim.slice, claim.lease, list(lines)):
        raise LeaseLost


def give_back(tx: Transaction, held: Sequence[tuple[Claim, Sequence[int]]]) -> None:
    """Give slices back, without penalty, and charge those of their lines that an engine died with; once a lease."""
    batches.lock_all(tx.conn, sorted({claim.batch for claim, _ in held}))
    for claim, in_flight in held:
        if leases.batch_of(tx.conn, claim.lease) is not None:
            suspects.charge(tx.conn, claim.slice, claim.lease, list(in_flight))
            leases.give_back(tx.conn, claim.lease, "released")
    closing.move_on_all(tx, sorted({claim.batch for claim, _ in held}))


def lost(tx: Transaction, dropped: int, leases: int = 1) -> None:
    """Count leases that were found gone, and the answers that are dropped with them.

    Repeated after a broken commit it may count twice: a counter for people, which decides nothing.
    """
    counts.add(tx.conn, "answers_dropped", dropped)
    counts.add(tx.conn, "lease_lost", leases)


def count(tx: Transaction, name: str, by: int = 1, about: str = "") -> None:
    """Count a rare event for the whole platform; `about` is the id of what it met."""
    counts.add(tx.conn, name, by, about)


def unreadable(tx: Transaction, claim: Claim) -> None:
    """The slice can't be worked on, its bytes or our code being broken: give it back; fail the batch the third time."""
    batches.lock(tx.conn, claim.batch)
    if slices.count_unreadable(tx.conn, claim.slice, claim.lease) >= 3:
        closing.close(tx, claim.batch, BatchState.FAILED)
    leases.give_back(tx.conn, claim.lease, "released")
    closing.move_on(tx, claim.batch)


def seen(tx: Transaction, holder: Holder) -> None:
    """Note that a process is alive."""
    workers.seen(tx.conn, holder.id)


def forget(tx: Transaction) -> int:
    """Delete the rows of processes that were last seen a day ago; how many."""
    return workers.forget(tx.conn)


def claim_batch(
    tx: Transaction, holder: Holder, batch: str, kind: str, nonce: UUID, settings: LeaseSettings
) -> tuple[Batch, BatchLease] | None:
    """Take a batch's validation (`validate`) or assembly (`assemble`); None if it is not free or not due."""
    state = BatchState.VALIDATING if kind == "validate" else BatchState.FINALIZING
    ttl = timedelta(seconds=settings.lease_seconds)
    lease = batch_leases.claim(tx.conn, batch, kind, state, holder=holder.id, nonce=nonce, ttl=ttl)
    found = batches.find(tx.conn, batch)
    return (found, lease) if lease and found else None


def waiting_for_io(tx: Transaction) -> tuple[str, str] | None:
    """The most urgent batch that waits for an io worker, with what it waits for (`validate` or `assemble`)."""
    found = pending_batches.waiting_for_io(tx.conn)
    if found is None:
        return None
    batch, state = found
    return ("validate" if state is BatchState.VALIDATING else "assemble"), batch


def put_off(tx: Transaction, lease: int) -> None:
    """Give a validation or assembly back that can't go on now: a server is away, a disk full. No attempt is counted."""
    batch = leases.batch_of(tx.conn, lease)
    if batch is not None:
        batches.lock(tx.conn, batch)
        batch_leases.put_off(tx.conn, lease)


def give_up(tx: Transaction, batch: str, lease: int) -> None:
    """End a batch as failed, after its validation or assembly died too often. What was recorded is kept."""
    batches.lock(tx.conn, batch)
    now = batches.find(tx.conn, batch)
    if now is None or not batches.holds(tx.conn, batch, lease, now.state):
        raise LeaseLost
    error = LineError("internal_error", f"The batch could not be worked on while {now.state}; see the logs.")
    closing.end(tx, [batch], BatchEnd(BatchState.FAILED, errors=[error], error_count=1))
    batch_leases.settle(tx.conn, lease)
