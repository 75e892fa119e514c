"""Which database a process takes: one at its own revision, or a newer one that says that it may."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from penstock.store import migrate, revision
from penstock.store.engine import sync_engine

PROCESSES = (
    ("penstock.cli.main", "api", "--port", "0"),
    ("penstock.cli.main", "keeper"),
    ("penstock_worker", "io"),
    ("penstock_worker", "gpu", "--model", "tiny=echo", "--engine", "echo"),
    ("penstock.cli.main", "keys", "list"),
)


def fault(url: str, needed: str) -> str | None:
    engine = sync_engine(url, connections=1)
    with engine.connect() as conn:
        found = revision.fault(conn, needed)
    engine.dispose()
    return found


def change(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[call-overload]


def test_what_was_migrated_is_taken_and_says_whose_code_may_still_run(empty_database_url: str) -> None:
    assert fault(empty_database_url, "0001") == "The database holds nothing of Penstock yet: run `penstock migrate`."
    migrate.upgrade(empty_database_url)
    assert fault(empty_database_url, revision.newest()) is None
    with psycopg.connect(empty_database_url) as connection:
        [oldest] = connection.execute("select obj_description('alembic_version'::regclass)").fetchone() or [None]
    assert oldest <= revision.newest()


@pytest.mark.parametrize(
    ("current", "oldest", "told"),
    [
        ("0030", "0030", None),
        ("0029", "0029", "The database is at revision 0029, and this Penstock needs 0030: run `penstock migrate`."),
        ("0031", "0030", None),
        ("0031", "0031", "knows revision 0030, and the database is at 0031, which needs 0031 at least."),
        ("0033", "0032", "knows revision 0030, and the database is at 0033, which needs 0032 at least."),
        ("0031", None, "which needs 0031 at least. Install the newer Penstock."),
    ],
)
def test_either_side_that_is_older_is_named(
    empty_database_url: str, current: str, oldest: str | None, told: str | None
) -> None:
    change(empty_database_url, "create table alembic_version (version_num varchar(32))")
    change(empty_database_url, f"insert into alembic_version values ('{current}')")
    if oldest:
        change(empty_database_url, f"comment on table alembic_version is '{oldest}'")
    found = fault(empty_database_url, "0030")
    assert found is None if told is None else told in (found or "")


@pytest.mark.parametrize("command", PROCESSES, ids=lambda command: command[1])
def test_every_process_ends_with_one_line_on_a_database_that_was_not_migrated(
    empty_database_url: str, redis_url: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    environment = os.environ | {
        "PENSTOCK_DATABASE_URL": empty_database_url,
        "PENSTOCK_REDIS_URL": redis_url,
        "PENSTOCK_BLOB_URL": f"file://{tmp_path}/blobs",
        "PENSTOCK_RUNTIME_DIR": str(tmp_path / "run"),
        "PENSTOCK_LOG_DIR": str(tmp_path / "logs"),
    }
    done = subprocess.run([sys.executable, "-m", *command], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "penstock: The database holds nothing of Penstock yet: run `penstock migrate`.\n"
