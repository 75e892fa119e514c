"""Sessions: rows of who logged in to the console, as hashes of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Connection, text

_OPEN = text("""
    -- The oldest ones of a key make room: logging in again and again grows nothing.
    with gone as (
        delete from sessions where hash = any(array(
            select hash from sessions where key = :key order by opened_at desc, hash offset :others)))
    insert into sessions (hash, key) values (:hash, :key)""")
_VALID = text("""
    -- As an access is looked up, of many at once.
    select s.hash from sessions s join api_keys k on k.id = s.key join tenants t on t.id = k.tenant
    where s.hash = any(cast(:hashes as bytea[])) and s.seen_at > clock_timestamp() - :idle
      and k.revoked_at is null and t.closed_at is null
      and (k.expires_at is null or k.expires_at > clock_timestamp())""")
_END = text("delete from sessions where hash = :hash")
_DELETE_IDLE = text("""
    delete from sessions where hash = any(array(
        select hash from sessions where seen_at < clock_timestamp() - :idle
        order by seen_at limit :limit for update skip locked))""")


def insert(conn: Connection, hash: bytes, key: str, *, most: int) -> None:
    """Add a key's session; of a key there are at most so many, and the oldest go."""
    conn.execute(_OPEN, {"hash": hash, "key": key, "others": most - 1})


def valid(conn: Connection, hashes: Sequence[bytes], *, idle: timedelta) -> set[bytes]:
    """Those of these sessions that are valid at this moment, with their keys. For the platform's own work."""
    return {bytes(row.hash) for row in conn.execute(_VALID, {"hashes": list(hashes), "idle": idle})}


def end(conn: Connection, hash: bytes) -> None:
    """End a session, if it is there."""
    conn.execute(_END, {"hash": hash})


def delete_idle(conn: Connection, *, idle: timedelta, limit: int) -> int:
    """Delete sessions of any keys that asked nothing for so long. For the platform's own work."""
    return conn.execute(_DELETE_IDLE, {"idle": idle, "limit": limit}).rowcount
