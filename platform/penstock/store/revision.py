"""The schema's revision: which one a database has, and whether this code can live with it.

A migration says in `OLDEST` which revision's code may still run beside it, itself unless it says so; the database keeps
the latest such word as a comment on Alembic's own table, for code that does not know the migration. So an upgrade is:
migrate, then restart the processes one by one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import sqlalchemy.exc
from sqlalchemy import Connection, Engine, text

from penstock.store.engine import sync_engine

_FOUND: Final = text("""
    select to_regclass('alembic_version') is not null as migrated,
           obj_description(to_regclass('alembic_version'), 'pg_class') as oldest""")
_CURRENT: Final = text("select version_num from alembic_version")


def scripts() -> Path:
    """Find the migrations: inside the package where it was installed from a wheel, else beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parents[1] / "migrations"


def newest() -> str:
    """The revision that this code needs; revisions are numbers of four digits, and their files begin with them."""
    return max(file.name[:4] for file in (scripts() / "versions").glob("[0-9]*.py"))


def note_oldest(conn: Connection, oldest: str) -> None:
    """Keep which revision's code may still run; the number comes from a migration of ours."""
    assert oldest.isdecimal(), "a comment takes no parameters"
    conn.exec_driver_sql(f"comment on table alembic_version is '{oldest}'")


def fault(conn: Connection, needed: str) -> str | None:
    """Why code that needs this revision can't run on this database, and what mends it; None if it can."""
    found = conn.execute(_FOUND).one()
    current = conn.execute(_CURRENT).scalar() if found.migrated else None
    if current is None:
        return "The database holds nothing of Penstock yet: run `penstock migrate`."
    if current < needed:
        return f"The database is at revision {current}, and this Penstock needs {needed}: run `penstock migrate`."
    if current > needed and (found.oldest or current) > needed:
        return (
            f"This Penstock is older than the database: it knows revision {needed}, and the database is at {current}, "
            f"which needs {found.oldest or current} at least. Install the newer Penstock."
        )
    return None


def why_not(engine: Engine) -> str | None:
    """The `fault` of this database; None of one that is away: whoever needs it then says so."""
    try:
        return _fault_now(engine)
    except sqlalchemy.exc.DBAPIError:
        return None


def require(database_url: str) -> None:
    """End the process with one line if this code can't run on the database at this address.

    One that is away is told of, once, and why: it is waited for.
    """
    engine = sync_engine(database_url, connections=1)
    try:
        why = _fault_now(engine)
    except sqlalchemy.exc.DBAPIError as error:
        cause = str(error.orig).strip().splitlines()[0]
        print(f"penstock: The database is away ({cause}). It is waited for.", file=sys.stderr, flush=True)
        why = None
    finally:
        engine.dispose()
    if why:
        raise SystemExit(f"penstock: {why}")


def _fault_now(engine: Engine) -> str | None:
    with engine.connect() as conn:
        return fault(conn, newest())
