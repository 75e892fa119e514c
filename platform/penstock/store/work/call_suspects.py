"""Call suspects: waiting calls that were in flight when engines died, known by hashes only."""

from __future__ import annotations

from datetime import timedelta

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

_FORGET = text("delete from call_suspects where last_at < clock_timestamp() - :within")


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
