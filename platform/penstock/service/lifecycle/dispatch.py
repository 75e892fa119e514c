"""Dispatch: a short ready list for each model and lane; the backlog stays queued, so order is decided late."""

from __future__ import annotations

from datetime import timedelta

from penstock.domain.work import hint, slack
from penstock.domain.work.batch import BatchState
from penstock.domain.work.slack import Outlook
from penstock.service.core.transaction import Transaction
from penstock.service.lifecycle import closing
from penstock.settings.dispatch import DispatchSettings
from penstock.store.accounts import fair_turns
from penstock.store.batches import batches
from penstock.store.work import counts, folds, leases, pending_batches, promotion, slices

_MOST_PER_TICK = 1_000


def feed(tx: Transaction, model: str, settings: DispatchSettings) -> int:
    """Make the best queued slices of a model ready and hint them; how many hints."""
    lanes = slices.feed(
        tx.conn,
        model,
        ahead=settings.ready_per_worker,
        lines=settings.small_job_lines,
        gone=timedelta(seconds=settings.worker_gone_seconds),
    )
    tx.hints.extend(hint.generate(model, lane) for lane in lanes)
    return len(lanes)


def feed_all(tx: Transaction, settings: DispatchSettings) -> int:
    """Feed every model that has a backlog; how many slices became ready."""
    return sum(feed(tx, model, settings) for model in slices.backlog_models(tx.conn))


def hint_again(tx: Transaction, settings: DispatchSettings) -> int:
    """Repeat the hints of work that nobody took: they may be lost. How many."""
    again = timedelta(seconds=settings.hint_again_seconds)
    tx.hints.extend(
        hint.generate(model, lane)
        for model, lane in slices.stale(tx.conn, lines=settings.small_job_lines, again=again, limit=_MOST_PER_TICK)
    )
    for batch, state in pending_batches.unhinted(tx.conn, again=again, limit=_MOST_PER_TICK):
        tx.hint(hint.validate(batch) if state is BatchState.VALIDATING else hint.assemble(batch))
    for batch in folds.unhinted(tx.conn, again=again, limit=_MOST_PER_TICK):
        tx.hint(hint.fold(batch))
    return len(tx.hints)


def misplaced(tx: Transaction, settings: DispatchSettings) -> list[tuple[Outlook, bool]]:
    """Batches that run out of time, or do no more, with whether their slices belong one lane above their own."""
    gone = timedelta(seconds=settings.worker_gone_seconds)
    margin, share = settings.promote_slack_seconds, settings.promoted_share
    found = [
        (outlook, share > 0 and slack.rises(outlook, margin, share))
        for outlook in promotion.outlooks(tx.conn, gone=gone, limit=_MOST_PER_TICK)
    ]
    return [(outlook, rises) for outlook, rises in found if (outlook.unpromoted if rises else outlook.promoted)]


def put(tx: Transaction, outlook: Outlook, promoted: bool, settings: DispatchSettings) -> int:
    """Put a batch's slices one lane above their own, or back; how many, 0 if somebody is at it or it is closing."""
    if not batches.try_lock(tx.conn, outlook.batch):
        return 0
    moved = promotion.put(tx.conn, outlook.batch, outlook.model, promoted)
    feed(tx, outlook.model, settings)
    return moved


def reap(tx: Transaction, batch: str) -> int:
    """Free what silent holders held of a batch, and let it move on; how many leases, 0 if somebody is at it."""
    if not batches.try_lock(tx.conn, batch):
        return 0
    reaped = leases.reap(tx.conn, batch)
    closing.move_on(tx, batch)
    counts.add(tx.conn, "lease_reaped", reaped, about=batch)
    return reaped


def forget_turns(tx: Transaction) -> int:
    """Delete rows of tenants' turns that say no more than their absence would; how many."""
    return fair_turns.forget(tx.conn)


def silent_batches(tx: Transaction) -> list[str]:
    """Batches with a lease whose holder fell silent."""
    return leases.silent_batches(tx.conn, limit=_MOST_PER_TICK)


def overdue(tx: Transaction) -> list[str]:
    """Batches whose deadline has passed."""
    return pending_batches.overdue(tx.conn, limit=_MOST_PER_TICK)


def stuck(tx: Transaction) -> list[str]:
    """Batches that nobody moved on, because whoever should have done it died."""
    return pending_batches.stuck(tx.conn, limit=_MOST_PER_TICK)


def move_on(tx: Transaction, batch: str) -> bool:
    """Move a batch on to finalizing if it is due; False if it is not, or somebody is at it."""
    return batches.try_lock(tx.conn, batch) and closing.move_on(tx, batch)
