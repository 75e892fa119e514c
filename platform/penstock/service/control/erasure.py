"""Erasure: a tenant is closed, what runs of it is cancelled, and all that is its own is removed, to the last name.

The keeper does it, step by step, each a bounded transaction that notes what it removed: whoever dies between two, the
next one goes on. One at a time is at it, and the order is the same however often it begins again: batches (cancelled,
then given up by their holders, then removed), all else, what is left in the trail, the blobs, and last the tenant.
"""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from typing import Final

import structlog

from penstock.blobs.store import Blobs
from penstock.domain.accounts.access import Access
from penstock.domain.accounts.erasure import Erasure
from penstock.domain.accounts.tenant import BOOTSTRAP_TENANT
from penstock.domain.api_errors import BadRequest, NotFound, Unavailable
from penstock.domain.work.batch import BatchState
from penstock.failpoint import failpoint
from penstock.service.admin import sweep, tenants
from penstock.service.core import audit
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import Database, Transaction
from penstock.service.lifecycle import closing
from penstock.settings import Settings
from penstock.store import deletion, erasures

log = structlog.get_logger()

MOST: Final = 1_000
"""Rows of a kind that one step removes."""
_BATCHES: Final = 100
_TRAIL: Final = 20_000
"""Rows of the trail that one step looks at."""
_AFTER_A_BUG_SECONDS: Final = 10.0

Gone = dict[str, int]


def begin(tx: Transaction, tenant: str, asker: Access | None = None) -> Erasure:
    """Close a tenant, and let it be erased; the erasure that goes on already, if one does.

    Raises NotFound, and BadRequest for the platform's first tenant and for the asker's own.
    """
    tenants.get(tx, tenant)
    if tenant == BOOTSTRAP_TENANT:
        raise BadRequest(
            f"{tenant!r} is the platform's own tenant, whose key each start of an API makes again: it can't be erased. "
            "Delete its batches and files, or the whole platform.",
            param="tenant",
        )
    if asker is not None and asker.tenant == tenant:
        raise BadRequest("A key can't erase its own tenant: ask with another operator's.", param="tenant")
    found = erasures.close(tx.conn, tenant, id=fresh("erasure_"), actor=tx.actor)
    if found is None:
        raise NotFound("tenant", tenant)
    return found


def get(tx: Transaction, id: str) -> Erasure:
    """How far an erasure is; raise NotFound."""
    found = erasures.get(tx.conn, id)
    if found is None:
        raise NotFound("erasure", id)
    return found


def count(tx: Transaction, tenant: str) -> dict[str, int]:
    """How much there is of a tenant, before anybody erases it; raise NotFound."""
    tenants.get(tx, tenant)
    return erasures.count(tx.conn, tenant)


def step(tx: Transaction, id: str, settings: Settings) -> bool:
    """Do the next bounded part of an erasure; False if there is nothing to do now: it has ended, or waits."""
    erasure = erasures.lock(tx.conn, id)
    if erasure is None or erasure.tenant is None:
        return False
    gone = _remove(tx, erasure, erasure.tenant, settings)
    if gone is None:
        return _end(tx, erasure, erasure.tenant, settings)
    if gone:
        erasures.note(tx.conn, id, Counter(erasure.gone) + Counter(gone))
    return bool(gone)


def _remove(tx: Transaction, erasure: Erasure, tenant: str, settings: Settings) -> Gone | None:
    """Remove some rows of a tenant: what was removed, nothing while somebody has to let go; None if none is left."""
    if gone := _cancel(tx, tenant):
        return gone
    patience = timedelta(seconds=2 * settings.lease_seconds)
    if batches := erasures.removable(tx.conn, tenant, patience=patience, limit=_BATCHES):
        return _remove_batches(tx, tenant, batches)
    if erasures.has_batches(tx.conn, tenant):
        return {}
    part = erasures.remove_part(tx.conn, tenant, limit=MOST)
    if part is not None:
        return part
    moves = erasures.remove_moves(tx.conn, tenant, id=erasure.id, limit=_TRAIL)
    if moves is not None:
        return {"moves": moves}
    late = timedelta(seconds=settings.erasure_late_seconds)
    return {} if erasures.doom_blobs(tx.conn, tenant, late=late) else None


def _cancel(tx: Transaction, tenant: str) -> Gone:
    """Close open batches: their holders hear of it at their next beat, and nobody takes a slice of them any more."""
    found = erasures.open_batches(tx.conn, tenant, limit=_BATCHES)
    for batch in found:
        closing.close(tx, batch, BatchState.CANCELLED)
    return {"cancelled": len(found)} if found else {}


def _remove_batches(tx: Transaction, tenant: str, batches: list[str]) -> Gone:
    if not erasures.lock_slices(tx.conn, batches):
        return {}
    moves = erasures.remove_moves_of(tx.conn, tenant, batches, limit=MOST)
    if moves == MOST:
        return {"moves": moves}
    return {"moves": moves} | deletion.delete_some(tx.conn, batches, limit=MOST)


def _end(tx: Transaction, erasure: Erasure, tenant: str, settings: Settings) -> bool:
    """Remove the tenant, unless it was closed so lately that somebody may still know a key of it, or something came."""
    grace = timedelta(seconds=settings.key_cache_seconds + 1)
    if not erasures.alone(tx.conn, tenant, grace=grace):
        return False
    if _remove(tx, erasure, tenant, settings) is not None:
        return True
    erasures.end(tx.conn, tenant, id=erasure.id)
    audit.record(Transaction(tx.conn, erasure.actor), audit.NOBODY, "tenant.erased", erasure.id, **erasure.gone)
    log.info("tenant_erased", erasure=erasure.id, **erasure.gone)
    return False


def advance(db: Database, blobs: Blobs, id: str, settings: Settings, stop: threading.Event) -> None:
    """Go on with an erasure until it has ended or has to wait."""
    while not stop.is_set():
        while not stop.is_set() and db.run(step, id, settings):
            failpoint("erasure.stepped")
        if not db.run(_has_due_blobs, id) or not sweep.doomed_blobs(db, blobs):
            return  # it has ended or waits, for a blob's time perhaps, or the blob store is away


def _has_due_blobs(tx: Transaction, id: str) -> bool:
    tenant = get(tx, id).tenant
    return tenant is not None and erasures.has_due_blobs(tx.conn, tenant)


def run(db: Database, blobs: Blobs, settings: Settings, stop: threading.Event) -> None:
    """Look for tenants that are to be erased, and erase them, until told to stop."""
    wait, waits = settings.tick_seconds, False
    while not stop.wait(wait):
        wait = settings.tick_seconds
        try:
            for id in db.run(lambda tx: erasures.pending(tx.conn)):
                advance(db, blobs, id, settings, stop)
            waits = False
        except Unavailable as error:
            if not waits:  # once, until it goes on
                log.warning("erasure_waits", error=error.message)
            waits = True
        except Exception:  # a bug of ours: the keeper's other duties go on, and so does this one, later
            log.exception("erasure_failed")
            wait = _AFTER_A_BUG_SECONDS
