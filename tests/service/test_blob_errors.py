"""Faults of the blob store are counted by kind, once each, and none is lost while the database is away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from store.world import World

from penstock.blobs import fault_tally
from penstock.blobs.store import Blobs
from penstock.domain.api_errors import Unavailable, Unreadable
from penstock.service.admin import tally
from penstock.service.core.transaction import Database
from penstock.store.engine import sync_engine
from penstock.store.work import counts


def test_each_fault_is_counted_by_its_kind(tmp_path: Path) -> None:
    fault_tally.take()
    blobs = Blobs(f"file://{tmp_path}")
    blobs.put("there", b"four")
    (tmp_path / "in-the-way").write_bytes(b"")
    for ask in (
        lambda: blobs.read("gone"),
        lambda: blobs.range("gone", 0, 4),
        lambda: blobs.range("there", 0, 8),
        lambda: asyncio.run(blobs.part("there", 2, 8)),
        lambda: blobs.put("in-the-way/one", b""),
        lambda: asyncio.run(blobs.try_out("in-the-way/two")),
    ):
        with pytest.raises((Unavailable, Unreadable)):
            ask()
    assert blobs.read("there") == b"four"
    assert fault_tally.take() == {"missing": 2, "short": 2, "away": 2}


def test_what_was_met_is_written_once_and_waits_for_a_database_that_is_away(world: World) -> None:
    fault_tally.take()
    fault_tally.note("away")
    fault_tally.note("full")
    away = Database(sync_engine("postgresql://nobody@127.0.0.1:9/none", connections=1), lambda hints: None)
    tally.write_blob_errors(away)
    away.close()
    for _ in range(2):
        tally.write_blob_errors(world.db)
    counted = world.db.run(lambda tx: counts.read(tx.conn))
    assert {name: times for name, times in counted.items() if name.startswith("blob_errors/")} == {
        "blob_errors/away": 1,
        "blob_errors/full": 1,
    }
