"""Batch leases: who validates or assembles a batch, under a lease as a slice has one."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, text

from penstock.domain.work.batch import BatchState
from penstock.domain.work.lease import BatchLease
from penstock.store.work import leases

_CLAIM_BATCH = text("""
    -- Its validation or assembly: free, and in the state that the work belongs to.
    with free as (
        select id from batches
        where id = :batch and state = :state and lease is null
        for no key update skip locked),
    opened as (
        insert into leases (kind, batch, holder, nonce, expires_at)
        select :kind, id, :holder, :nonce, clock_timestamp() + :ttl from free
        on conflict (nonce) do nothing
        returning id, batch)
    update batches b set lease = opened.id, attempts = b.attempts + 1 from opened where b.id = opened.batch""")

_CLAIMED_BATCH = text("""
    select l.id as lease, b.attempts from leases l join batches b on b.id = l.batch and b.lease = l.id
    where l.nonce = :nonce""")

_PUT_OFF_BATCH = text("""
    -- Free again, to be hinted a while later; what a server that was away or a full disk kept from its end was no
    -- attempt that counts.
    update batches b set lease = null, hinted_at = clock_timestamp(), attempts = b.attempts - 1 from leases l
    where l.id = :lease and l.closed_at is null and b.id = l.batch and b.lease = l.id""")


def claim(
    conn: Connection, batch: str, kind: str, state: BatchState, *, holder: UUID, nonce: UUID, ttl: timedelta
) -> BatchLease | None:
    """Take the batch's validation (`validate`) or assembly (`assemble`); None if it is not free or not due."""
    values = {"batch": batch, "kind": kind, "state": state, "holder": holder, "nonce": nonce, "ttl": ttl}
    conn.execute(_CLAIM_BATCH, values)
    row = conn.execute(_CLAIMED_BATCH, {"nonce": nonce}).first()
    return BatchLease(row.lease, row.attempts) if row else None


def settle(conn: Connection, lease: int) -> None:
    """Close a validate or assemble lease whose work is committed in this transaction."""
    leases.shut(conn, lease, "settled")


def put_off(conn: Connection, lease: int) -> None:
    """Free a batch whose validation or assembly could not go on now; nothing happens if the lease is closed."""
    conn.execute(_PUT_OFF_BATCH, {"lease": lease})
    leases.shut(conn, lease, "released")
