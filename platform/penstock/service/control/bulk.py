"""Bulk: one act on many batches or jobs of a tenant, each in a transaction of its own, with its own outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from penstock.domain.api_errors import PenstockError, Unavailable
from penstock.domain.work.batch import BatchState
from penstock.domain.work.batch_filter import BatchFilter
from penstock.service.control import cancel, steer
from penstock.service.core import cursor
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.settings import Settings
from penstock.store.batches import batch_lists
from penstock.store.cursors import Listed

MOST: Final = 1_000
"""Batches of one bulk act."""

MOST_RETRIED: Final = 100
"""Of one that makes a new batch of each."""


class BulkAct(StrEnum):
    """What may be done to many at once."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True)
class BulkOutcome:
    """What came of it for one batch: its state then, or why nothing was done."""

    id: str
    state: BatchState | None = None
    error: PenstockError | None = None
    retry: str | None = None
    """The id of what was made to ask its lines again."""


def chosen(tx: Transaction, tenant: str, kind: str, filter: BatchFilter, *, after: str | None, limit: int) -> list[str]:
    """The ids of a tenant's batches or jobs of a filter, newest first, after the one named; raise NotFound."""
    place = cursor.place(tx, tenant, Listed(kind), after)
    return batch_lists.ids(tx.conn, tenant, kind=kind, chosen=filter, after=place, limit=limit)


async def act(
    db: AsyncDatabase, tenant: str, kind: str, what: BulkAct, ids: Sequence[str], settings: Settings
) -> list[BulkOutcome]:
    """Do it to each, in the order of `ids`; what is so already is the same answer, as when it is done to one.

    Raises Unavailable if the database goes away: what is done stays done, and all of it may be asked again.
    """
    do = _of(what, tenant, kind, settings)
    return await each(db, ids, lambda tx, id: BulkOutcome(id, do(tx, id)))


async def each(
    db: AsyncDatabase, ids: Sequence[str], do: Callable[[Transaction, str], BulkOutcome]
) -> list[BulkOutcome]:
    """Do something to each, in the order of `ids`, each in a transaction of its own; raises as `act` does."""
    outcomes = []
    for id in dict.fromkeys(ids):
        try:
            outcomes.append(await db.run(do, id))
        except Unavailable:
            raise
        except PenstockError as error:
            outcomes.append(BulkOutcome(id, error=error))
    return outcomes


def _of(what: BulkAct, tenant: str, kind: str, settings: Settings) -> Callable[[Transaction, str], BatchState]:
    def do(tx: Transaction, id: str) -> BatchState:
        match what:
            case BulkAct.CANCEL:
                return cancel.cancel(tx, tenant, kind, id).state
            case BulkAct.PAUSE:
                return steer.pause(tx, tenant, kind, id).state
            case BulkAct.RESUME:
                return steer.resume(tx, tenant, kind, id, settings).state

    return do
