"""Folds: when one is due, who has it, and what becomes of it: it is recorded and settled, or asks later members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from penstock.domain.api_errors import LeaseLost
from penstock.domain.work import hint
from penstock.domain.work.fold_claim import FoldClaim
from penstock.domain.work.holder import Holder
from penstock.domain.work.slice import Claim
from penstock.failpoint import failpoint
from penstock.service.core.transaction import Transaction
from penstock.service.lifecycle import closing, dispatch
from penstock.settings import Settings
from penstock.settings.dispatch import DispatchSettings
from penstock.settings.leases import LeaseSettings
from penstock.store.batches import batches, files
from penstock.store.work import folds, leases

_MOST_PER_TICK: Final = 1_000


def settled(tx: Transaction, claims: Sequence[Claim]) -> None:
    """Hint the folds that are due since these slices are settled; of a fold itself nobody else is asked any more."""
    of_members = [one.slice for one in claims if one.chosen is not None and one.chosen.gathers]
    if of_members:
        for batch in folds.ended(tx.conn, of_members):
            tx.hint(hint.fold(batch))
    if own := [one.slice for one in claims if one.is_fold]:
        folds.unasked(tx.conn, own)


def waiting(tx: Transaction) -> str | None:
    """A batch that has a due fold."""
    found = folds.some_due(tx.conn, limit=1)
    return found[0] if found else None


def claim(tx: Transaction, holder: Holder, batch: str, nonce: UUID, settings: LeaseSettings) -> FoldClaim | None:
    """Take a batch's next due fold; None if there is none that nobody holds."""
    ttl = timedelta(seconds=settings.lease_seconds)
    return leases.claim_fold(tx.conn, batch, holder=holder.id, nonce=nonce, ttl=ttl)


def ask(
    tx: Transaction,
    fold: FoldClaim,
    picked: Mapping[int, Sequence[int]],
    plans: Mapping[int, folds.OwnPlan],
    settings: DispatchSettings,
) -> None:
    """Let later members (by place) be asked for these lines, and the fold wait for them.

    `plans`: where a judge's questions are, which become a part of the plan here. Raises LeaseLost.
    """
    batches.lock(tx.conn, fold.claim.batch)
    if not folds.ask(tx.conn, fold.claim.slice, fold.claim.lease, picked, plans):
        raise LeaseLost
    # Of a batch that was closed meanwhile nobody is asked: its questions stay intents, and are swept.
    kept = folds.named(tx.conn, fold.claim.slice, [one.key for one in plans.values()]) if plans else []
    if kept and not files.published(tx.conn, kept):
        raise LeaseLost  # the blob was given up meanwhile: whoever takes the fold next writes another
    failpoint("fold.asking")
    members = folds.members(tx.conn, fold.claim.slice)
    for model in sorted({one.model for one in members if one.place in picked}):
        dispatch.feed(tx, model, settings)
    closing.move_on(tx, fold.claim.batch)


def absent(tx: Transaction, settings: Settings) -> list[folds.Absence]:
    """Work of members that waited for a worker for as long as its ensemble says."""
    gone = timedelta(seconds=settings.worker_gone_seconds)
    found = folds.absences(tx.conn, gone=gone, limit=_MOST_PER_TICK)
    return [one for one in found if one.seconds > one.definition.timeout_seconds]


def pass_over(tx: Transaction, one: folds.Absence) -> int:
    """Go on without a member; how many slices it is asked no more, 0 if somebody is at the batch."""
    if not batches.try_lock(tx.conn, one.batch):
        return 0
    gone = folds.pass_over(tx.conn, one.batch, one.model)
    folds.ended_in(tx.conn, one.batch)
    for batch in folds.due_in(tx.conn, [one.batch]):
        tx.hint(hint.fold(batch))
    return gone
