"""Sessions: rows of who logged in to the console, as hashes of their tokens."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, text

_OPEN = text("""
    -- The oldest ones of a key make room: logging in again and again grows nothing.
    with gone as (
        delete from sessions where hash = any(array(
            select hash from sessions where key = :key order by opened_at desc, hash offset :others)))
    insert into sessions (hash, key) values (:hash, :key)""")
_END = text("delete from sessions where hash = :hash")
_DELETE_IDLE = text("""
    delete from sessions where hash = any(array(
        select hash from sessions where seen_at < clock_timestamp() - :idle
        order by seen_at limit :limit for update skip locked))""")


def insert(conn: Connection, hash: bytes, key: str, *, most: int) -> None:
    """Add a key's session; of a key there are at most so many, and the oldest go."""
    conn.execute(_OPEN, {"hash": hash, "key": key, "others": most - 1})


def end(conn: Connection, hash: bytes) -> None:
    """End a session, if it is there."""
    conn.execute(_END, {"hash": hash})


def delete_idle(conn: Connection, *, idle: timedelta, limit: int) -> int:
    """Delete sessions of any keys that asked nothing for so long. For the platform's own work."""
    return conn.execute(_DELETE_IDLE, {"idle": idle, "limit": limit}).rowcount
