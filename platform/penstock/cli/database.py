"""The operator's way to the database, for what no API key may do: keys and models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.stack.problem import Problem

if TYPE_CHECKING:
    from penstock.service.core.transaction import Database


def database_url(data: Path) -> str:
    """PENSTOCK_DATABASE_URL, else the embedded server of this data folder."""
    from penstock.settings import load
    from penstock.stack import layout, postgres

    if "PENSTOCK_DATABASE_URL" in os.environ:
        return load().database_url
    place = layout.at(data)
    if not (place.data / "postgres").is_dir():
        raise Problem(
            f"No database: set PENSTOCK_DATABASE_URL, or give the folder of `penstock up` (not {place.data})."
        )
    return postgres.url(layout.runtime_folder(place, os.environ) / "postgres")


@contextmanager
def opened(data: Path) -> Iterator[Database]:
    """The database for one command."""
    with opened_at(database_url(data)) as db:
        yield db


@contextmanager
def opened_at(url: str) -> Iterator[Database]:
    """The database at this address for one command."""
    from penstock.domain.accounts.audit import CLI
    from penstock.service.core.transaction import Database
    from penstock.store import revision
    from penstock.store.engine import sync_engine

    db = Database(sync_engine(url, connections=1), lambda hints: None, CLI)
    try:
        if why := revision.why_not(db.engine):
            raise Problem(why)
        yield db
    finally:
        db.close()
