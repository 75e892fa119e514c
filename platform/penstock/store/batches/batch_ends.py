"""Batch ends: rows that say what ended, until they are added to the counts."""

from __future__ import annotations

from sqlalchemy import Connection, text

from penstock.domain.work.batch_ends import EndedBatch

_TAKE = text("""
    -- Each row is taken by one keeper.
    delete from batch_ends where ctid = any(array(select ctid from batch_ends limit :limit for update skip locked))
    returning kind, lane, state, late, seconds, validating_seconds, first_answer_seconds, finalizing_seconds, cost,
              expected_seconds, taken_seconds""")


def take(conn: Connection, limit: int) -> list[EndedBatch]:
    """Delete so many rows, which their taker counts in the same transaction."""
    return [EndedBatch(**row._mapping) for row in conn.execute(_TAKE, {"limit": limit})]
