"""Call suspects: waiting calls that were in flight when engines died, known by hashes only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

_NOTE = text("""
    -- Deaths that are older than the while for which a call is refused are forgiven.
    insert into call_suspects as c (fingerprint, deaths) values (:fingerprint, 1)
    on conflict (fingerprint) do update set
        deaths = case when c.last_at > clock_timestamp() - :within then c.deaths + 1 else 1 end,
        last_at = clock_timestamp()
    returning deaths""")

_REFUSED = text("""
    select fingerprint from call_suspects
    where deaths >= :deaths and last_at > clock_timestamp() - :within order by last_at desc limit :limit""")

_NEWEST = text("select fingerprint, deaths, last_at from call_suspects order by last_at desc limit :limit")

_FORGET = text("delete from call_suspects where last_at < clock_timestamp() - :within")


@dataclass(frozen=True)
class CallSuspect:
    """A waiting call that was in flight when engines died."""

    fingerprint: str
    """Of tenant, endpoint and body; hexadecimal digits."""
    deaths: int
    last_at: datetime


def newest(conn: Connection, *, limit: int) -> list[CallSuspect]:
    """Suspects, the latest first: as many are kept as a while's deaths made."""
    rows = conn.execute(_NEWEST, {"limit": limit})
    return [CallSuspect(row.fingerprint.hex(), row.deaths, row.last_at) for row in rows]


def note(conn: Connection, fingerprint: bytes, *, within: timedelta) -> int:
    """Count an engine's death against a call; how many it met within this while."""
    return int(conn.execute(_NOTE, {"fingerprint": fingerprint, "within": within}).scalar_one())


def refused(conn: Connection, *, deaths: int, within: timedelta, limit: int) -> set[bytes]:
    """Calls that met so many deaths within this while, the latest first, at most so many of them."""
    rows = conn.execute(_REFUSED, {"deaths": deaths, "within": within, "limit": limit})
    return {bytes(row.fingerprint) for row in rows}


def forget(conn: Connection, *, within: timedelta) -> int:
    """Delete what is older than this."""
    return conn.execute(_FORGET, {"within": within}).rowcount
