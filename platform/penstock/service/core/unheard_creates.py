"""Unheard creates: an SDK that got no answer asks again by itself, and shall get what it made, not another.

OpenAI's SDKs send no Idempotency-Key; they mark a retry by `x-stainless-retry-count`. Such a retry gets what a create
of the same API key with the same body made within ten minutes, if the answer to that was not fully sent, and no other
retry has it already. Whether it was sent is known a moment after it was, so a retry waits for that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection

from penstock.domain.idempotency import Once, SdkCreate, remembered
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.store.batches import unheard_creates

ByKey = Callable[[Connection, str, str], tuple[str, bytes] | None]
"""What a tenant's idempotency key made, and the fingerprint of its request; by kind of object."""

_LOOK_SECONDS: Final = 0.1
_LOOKS: Final = 20
"""Twice as long as an answer can be on its way; who creates the same again and again may hold up no retry."""


async def settle(db: AsyncDatabase, tenant: str, once: Once | None) -> None:
    """Wait until it is known of each create that this is a retry of whether its answer was sent."""
    if not isinstance(once, SdkCreate) or not once.is_retry:
        return
    for _ in range(_LOOKS):
        if not await db.run(_is_unsettled, tenant, once):
            return
        await asyncio.sleep(_LOOK_SECONDS)


def _is_unsettled(tx: Transaction, tenant: str, once: SdkCreate) -> bool:
    unheard_creates.lock(tx.conn, tenant, once)
    return unheard_creates.is_unsettled(tx.conn, tenant, once)


def take(tx: Transaction, tenant: str, once: SdkCreate) -> str | None:
    """The id of what this is a retry of; None for what must be made. Others like it wait until the transaction ends."""
    unheard_creates.lock(tx.conn, tenant, once)
    return unheard_creates.take(tx.conn, tenant, once) if once.is_retry else None


def made_before(tx: Transaction, tenant: str, once: Once | None, by_key: ByKey) -> str | None:
    """The id of what this create made before: by its idempotency key, or as an SDK's retry; None if it made nothing.

    What an SDK's retry finds may be deleted since. Raises Conflict if the key was used for another request.
    """
    if once is None:
        return None
    if isinstance(once, SdkCreate):
        return take(tx, tenant, once)
    return remembered(once, by_key(tx.conn, tenant, once.key))


def note(tx: Transaction, tenant: str, once: Once | None, made: str) -> None:
    """Note what an SDK makes, in the transaction that makes it."""
    if isinstance(once, SdkCreate):
        unheard_creates.note(tx.conn, tenant, once, made)


def heard(tx: Transaction, tenant: str, made: str) -> None:
    """Its answer was sent in full: no retry is of this."""
    unheard_creates.heard(tx.conn, tenant, made)


def cut(tx: Transaction, tenant: str, made: str) -> None:
    """Its client had left before the answer: a retry needs not wait."""
    unheard_creates.cut(tx.conn, tenant, made)
