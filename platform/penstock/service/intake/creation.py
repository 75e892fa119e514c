"""Creation: a batch or job is inserted once, however often it is asked for, with webhook and hint to validate it."""

from __future__ import annotations

from penstock.domain.idempotency import Once
from penstock.domain.limits.limit import LimitName
from penstock.domain.work import hint
from penstock.domain.work.batch import Batch
from penstock.domain.work.new_batch import NewBatch
from penstock.service.core import unheard_creates
from penstock.service.core.transaction import Transaction
from penstock.service.limits import kept
from penstock.service.webhooks import endpoints
from penstock.settings.limits import LimitSettings
from penstock.store.batches import batches


def insert(tx: Transaction, new: NewBatch, settings: LimitSettings) -> tuple[Batch, bool]:
    """Insert a batch or job that waits to be validated; raise TooMany.

    The earlier one and False if the same request came twice at once, and the other was first.
    """
    kept.check(tx, new.tenant, {LimitName.OPEN_BATCHES: 1}, settings)
    if not batches.insert(tx.conn, new):
        return first(tx, new), False
    attach(tx, new)
    tx.hint(hint.validate(new.id))
    return _get(tx, new.tenant, new.id), True


def attach(tx: Transaction, new: NewBatch) -> None:
    """Give a batch that was just inserted the webhook of its terms, if they have one, and note it for SDKs' retries."""
    unheard_creates.note(tx, new.tenant, new.once, new.id)
    if new.terms.webhook:
        endpoints.attach(tx, new.tenant, new.id, new.terms.webhook)


def made_before(tx: Transaction, tenant: str, once: Once | None) -> Batch | None:
    """What this idempotency key made before, or what this is an SDK's retry of, if anything."""
    id = unheard_creates.made_before(tx, tenant, once, batches.by_idempotency_key)
    return batches.get(tx.conn, tenant, id) if id else None


def first(tx: Transaction, new: NewBatch) -> Batch:
    """The batch that took the idempotency key of one that could not be inserted."""
    batch = made_before(tx, new.tenant, new.once)
    assert batch is not None, "only an idempotency key can be taken, and its batch is there"
    return batch


def _get(tx: Transaction, tenant: str, id: str) -> Batch:
    batch = batches.get(tx.conn, tenant, id)
    assert batch is not None, "it is there"
    return batch
