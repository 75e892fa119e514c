"""Orders: what an operator wants of a process, in its row. They end with the process: one that starts has none."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, text

from penstock.domain.fleet.worker import WorkerOrders

_READ = text("select drain, restarts_asked from workers where id = :id")
_DRAIN = text("update workers set drain = :drain where id = :id and drain <> :drain returning id")
_RESTART = text("""
    -- While one is under way, another would be the same.
    update workers set restarts_asked = restarts_done + 1
    where id = :id and restarts_asked = restarts_done returning id""")
_RESTARTED = text("""
    update workers set restarts_done = :number
    where id = :id and restarts_done < :number and restarts_asked >= :number""")


def read(conn: Connection, id: UUID) -> WorkerOrders:
    """What is wanted of a process."""
    row = conn.execute(_READ, {"id": id}).first()
    return WorkerOrders(row.drain, row.restarts_asked) if row else WorkerOrders()


def drain(conn: Connection, id: UUID, drain: bool) -> bool:
    """Want a process to take nothing new, or to take work again; False if that is wanted already."""
    return conn.execute(_DRAIN, {"id": id, "drain": drain}).first() is not None


def restart(conn: Connection, id: UUID) -> bool:
    """Want a process to restart its engine; False if it has not done the last restart yet, which is this one then."""
    return conn.execute(_RESTART, {"id": id}).first() is not None


def restarted(conn: Connection, id: UUID, number: int) -> None:
    """Note that a process has done the restart of this number. May be repeated."""
    conn.execute(_RESTARTED, {"id": id, "number": number})
