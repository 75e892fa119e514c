"""Sweeps: what nobody needs any more goes, a bounded amount at a time; safe to run twice, and from several keepers.

A blob is deleted in three steps, and a keeper that dies between two of them leaves the rest to the next one:
its intent is doomed in a transaction (from then on nobody can publish it), the blob is deleted, the intent goes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Final

import structlog

from penstock.blobs.store import Blobs, away_is_unavailable
from penstock.domain.api_errors import PenstockError, Unavailable
from penstock.failpoint import failpoint
from penstock.service.core.transaction import Database, Transaction
from penstock.settings.sweep import SweepSettings
from penstock.store import cursors, deletion, erasures, sweep
from penstock.store.accounts import audit, sessions
from penstock.store.batches import files
from penstock.store.evals import eval_runs
from penstock.store.work import counts, incidents, samples

log = structlog.get_logger()

MOST: Final = 1_000
"""Rows, or blobs, that one duty takes at a time."""

_AGAIN: Final = timedelta(seconds=60)
_BATCHES: Final = 100
_AT_ONCE: Final = 8  # an object store takes some 30 ms for a deletion
_GROUP: Final = 64


def unfinished(tx: Transaction, settings: SweepSettings) -> int:
    """Give up blobs whose writer never published them; a late writer has another 24th of the time to hear of it."""
    after = timedelta(seconds=settings.unfinished_blob_seconds)
    return sweep.doom_unfinished(tx.conn, after=after, late=after / 24, limit=MOST)


def expired_files(tx: Transaction, settings: SweepSettings) -> int:
    """Delete files that have expired."""
    return _counted(tx, "file_swept", sweep.delete_expired_files(tx.conn, limit=MOST))


def old_files(tx: Transaction, settings: SweepSettings) -> int:
    """Delete files of tenants that keep them for a time of their own."""
    return _counted(tx, "file_swept", sweep.delete_old_files(tx.conn, limit=MOST))


def expired_uploads(tx: Transaction, settings: SweepSettings) -> int:
    """End uploads that were abandoned, and delete those that ended a day ago."""
    some = min(_BATCHES, MOST)  # each may have thousands of parts
    expired = sweep.expire_uploads(tx.conn, limit=some)
    deleted = sweep.delete_uploads(tx.conn, limit=MOST)
    return MOST if expired == some else max(expired, deleted)


def unheard_creates(tx: Transaction, settings: SweepSettings) -> int:
    """Forget creates that no SDK's retry can be of any more."""
    return sweep.delete_unheard(tx.conn, limit=MOST)


def pieces(tx: Transaction, settings: SweepSettings) -> int:
    """Delete segments, plan and suspects of batches that ended a while ago: their lines are in their files."""
    ended = sweep.leftovers(tx.conn, after=timedelta(seconds=settings.pieces_seconds), limit=_BATCHES)
    if not ended:
        return 0
    deleted = sweep.delete_segments(tx.conn, ended, limit=MOST)
    if deleted < MOST:
        sweep.delete_leftovers(tx.conn, ended)
    _counted(tx, "segment_swept", deleted)
    return MOST if len(ended) == _BATCHES else deleted


def old_batches(tx: Transaction, settings: SweepSettings) -> int:
    """Delete batches and jobs that ended long ago, with their results; how long, their tenant may have of its own."""
    most = min(_BATCHES, MOST)
    after = timedelta(seconds=settings.batches_seconds) if settings.batches_seconds else None
    old = deletion.old(tx.conn, after=after, limit=most)
    if not old:
        return 0
    gone = deletion.delete_some(tx.conn, old, limit=MOST).get("batches", 0)
    _counted(tx, "batch_swept", gone)
    return MOST if len(old) == most or not gone else gone


def old_eval_runs(tx: Transaction, settings: SweepSettings) -> int:
    """Delete runs of evals that ended long ago, as batches that did, with their results and comparisons."""
    most = min(_BATCHES, MOST)
    after = timedelta(seconds=settings.batches_seconds) if settings.batches_seconds else None
    old = eval_runs.old(tx.conn, after=after, limit=most)
    for tenant in sorted({tenant for tenant, _ in old}):
        eval_runs.delete(tx.conn, tenant, [id for owner, id in old if owner == tenant])
    return MOST if len(old) == most else len(old)


def old_leases(tx: Transaction, settings: SweepSettings) -> int:
    """Delete leases that are long closed."""
    return _counted(tx, "lease_swept", sweep.delete_leases(tx.conn, limit=MOST))


def old_deliveries(tx: Transaction, settings: SweepSettings) -> int:
    """Delete deliveries that are over and old, and endpoints that nothing is left of."""
    after = timedelta(seconds=settings.events_seconds)
    deleted = sweep.delete_deliveries(tx.conn, after=after, limit=MOST)
    sweep.delete_endpoints(tx.conn, after=after, limit=MOST)
    return _counted(tx, "delivery_swept", deleted)


def old_events(tx: Transaction, settings: SweepSettings) -> int:
    """Delete events that are old."""
    after = timedelta(seconds=settings.events_seconds)
    return _counted(tx, "event_swept", sweep.delete_events(tx.conn, after=after, limit=MOST))


def old_trail(tx: Transaction, settings: SweepSettings) -> int:
    """Delete the oldest part of the trail of state moves."""
    after = timedelta(seconds=settings.trail_seconds)
    return _counted(tx, "trail_swept", sweep.delete_trail(tx.conn, after=after, limit=MOST))


def old_usage(tx: Transaction, settings: SweepSettings) -> int:
    """Delete what was used long ago: no bill is written over it any more."""
    return sweep.delete_usage(tx.conn, after=timedelta(seconds=settings.usage_seconds), limit=MOST)


def old_audit(tx: Transaction, settings: SweepSettings) -> int:
    """Delete the oldest rows of the audit, and what is known of erasures that are as old."""
    erasures.delete_old(tx.conn, after=timedelta(seconds=settings.audit_seconds))
    return audit.delete_old(tx.conn, after=timedelta(seconds=settings.audit_seconds), limit=MOST)


def old_samples(tx: Transaction, settings: SweepSettings) -> int:
    """Delete samples that no chart goes back to: of ten seconds after a day, of a minute after a week."""
    return samples.delete_old(tx.conn, limit=MOST)


def old_incidents(tx: Transaction, settings: SweepSettings) -> int:
    """Delete incidents after a week."""
    return incidents.delete_old(tx.conn, limit=MOST)


def idle_sessions(tx: Transaction, settings: SweepSettings) -> int:
    """Forget sessions of the console that are over."""
    return sessions.delete_idle(tx.conn, idle=timedelta(seconds=settings.session_idle_seconds), limit=MOST)


def old_places(tx: Transaction, settings: SweepSettings) -> int:
    """Forget where things stood that were deleted more than a day ago: no list goes on after them any more."""
    return cursors.delete_old(tx.conn, limit=MOST)


def _counted(tx: Transaction, name: str, by: int) -> int:
    counts.add(tx.conn, name, by)
    return by


def doomed_blobs(db: Database, blobs: Blobs) -> int:
    """Delete doomed blobs, outside of any transaction, then forget them; what can't be deleted is left for later."""
    due = db.run(lambda tx: sweep.due(tx.conn, again=_AGAIN, limit=MOST))
    if due:
        failpoint("sweep.taken")
    deleted = 0
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="sweep") as pool:
        for first in range(0, len(due), _GROUP):
            group = due[first : first + _GROUP]
            gone = list(filter(None, pool.map(lambda key: _delete(blobs, key), group)))
            if not gone:
                break  # the blob store is away
            failpoint("sweep.deleted")
            deleted += db.run(_forget, gone)
    return deleted


def _delete(blobs: Blobs, key: str) -> str | None:
    try:
        with away_is_unavailable():
            blobs.delete(key)
    except (PenstockError, OSError) as error:
        log.warning("blob_not_deleted", key=key, error=str(error.__cause__ or error))
        return None
    return key


def _forget(tx: Transaction, keys: list[str]) -> int:
    return _counted(tx, "blob_swept", files.forget(tx.conn, keys))


DUTIES: Final[tuple[Callable[[Transaction, SweepSettings], int], ...]] = (
    unfinished,
    expired_files,
    old_files,
    expired_uploads,
    unheard_creates,
    pieces,
    old_leases,
    old_deliveries,
    old_events,
    old_trail,
    old_batches,
    old_eval_runs,
    old_usage,
    old_audit,
    idle_sessions,
    old_places,
    old_samples,
    old_incidents,
)


def once(db: Database, blobs: Blobs, settings: SweepSettings) -> dict[str, int]:
    """Do each duty once; one that fails does not keep the others from their turn. How much each did."""
    turns: dict[str, Callable[[], int]] = {duty.__name__: partial(db.run, duty, settings) for duty in DUTIES}
    turns["doomed_blobs"] = partial(doomed_blobs, db, blobs)
    done: dict[str, int] = {}
    for name, turn in turns.items():
        try:
            done[name] = turn()
        except Unavailable as error:
            log.warning("sweep_waits", duty=name, error=error.message)
        except Exception:
            log.exception("sweep_failed", duty=name)
    return {name: count for name, count in done.items() if count}


def run(db: Database, blobs: Blobs, settings: SweepSettings, stop: threading.Event) -> None:
    """Sweep every now and then, and at once again while there is more, until told to stop."""
    while not stop.wait(settings.sweep_seconds):
        done = {"": MOST}
        while max(done.values(), default=0) >= MOST and not stop.is_set():
            done = once(db, blobs, settings)
            if done:
                log.info("swept", **done)
