"""File sums: what a tenant keeps is known without counting its files, and exact whoever adds and deletes at once."""

from __future__ import annotations

import random
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from store import invariants
from store.world import World

from penstock.domain.api_errors import TooMany
from penstock.domain.limits.limit import LimitName
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import Transaction
from penstock.service.limits import kept
from penstock.store.accounts import limits
from penstock.store.batches import files


def add(tx: Transaction, size: int, once: str | None = None, tenant: str = "acme") -> str:
    """A file's row."""
    id, key = fresh("file-"), f"{tenant}/files/{uuid.uuid4().hex}"
    files.intend(tx.conn, key)
    made = files.insert(
        tx.conn,
        tenant,
        id=id,
        purpose="batch",
        filename="in.jsonl",
        bytes=size,
        sha256=bytes(32),
        blob_key=key,
        ttl=None,
        idempotency_key=once,
        fingerprint=b"" if once else None,
    )
    return id if made else ""


def used(world: World, tenant: str = "acme") -> tuple[int, int]:
    """Files and bytes, as limits see them."""

    def look(tx: Transaction) -> tuple[int, int]:
        return limits.used(tx.conn, tenant, LimitName.FILES), limits.used(tx.conn, tenant, LimitName.STORED_BYTES)

    return world.db.run(look)


def check(world: World) -> None:
    with world.db.engine.begin() as conn:
        invariants.check(conn)


def test_what_is_added_counts_once_what_is_deleted_or_rolled_back_not_at_all(world: World) -> None:
    first = world.db.run(add, 10)
    assert world.db.run(add, 20, "the same")
    assert not world.db.run(add, 30, "the same"), "its key has a file already"
    world.tenant("globex")
    world.db.run(add, 5, None, "globex")
    assert (used(world), used(world, "globex"), used(world, "nobody")) == ((2, 30), (1, 5), (0, 0))

    def fails(tx: Transaction) -> None:
        add(tx, 100)
        raise TooMany("no")

    with pytest.raises(TooMany):
        world.db.run(fails)
    for _ in range(2):
        world.db.run(lambda tx: files.delete(tx.conn, "acme", first))
    assert used(world) == (1, 20)
    check(world)


def test_the_ledger_stays_short_and_exact_while_many_add_and_delete_at_once(world: World) -> None:
    settings = world.settings

    def one(number: int) -> None:
        chance, mine = random.Random(number), []
        for _ in range(60):
            if mine and chance.random() < 0.4:
                id = mine.pop()
                world.db.run(lambda tx, id=id: files.delete(tx.conn, "acme", id))
            elif chance.random() < 0.5:
                mine.append(world.db.run(add, chance.randrange(1_000)))  # as an assembly does: without the lock
            else:

                def upload(tx: Transaction) -> str:
                    kept.check(tx, "acme", {LimitName.FILES: 1, LimitName.STORED_BYTES: 1}, settings)
                    return add(tx, chance.randrange(1_000))

                mine.append(world.db.run(upload))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(4)))
    check(world)
    [row] = world.rows("select count(*) as files, coalesce(sum(bytes), 0) as bytes from files where tenant = 'acme'")
    assert used(world) == (row.files, row.bytes)
    world.db.run(kept.check, "acme", {LimitName.FILES: 1}, settings)
    [row] = world.rows("select count(*) as rows from file_sums where tenant = 'acme'")
    assert row.rows <= limits.MOST_FILE_SUMS


def test_a_hundred_thousand_files_are_not_looked_at(world: World) -> None:
    world.sql("""
        insert into files (id, tenant, purpose, filename, bytes, sha256, blob_key)
        select 'file-' || n, 'acme', 'batch', 'in.jsonl', n, decode(repeat('00', 32), 'hex'), 'key-' || n
        from generate_series(1, 100000) n""")
    assert used(world) == (100_000, 5_000_050_000)
    read = "select coalesce(seq_tup_read + idx_tup_fetch, 0) as n from pg_stat_xact_user_tables where relname = 'files'"

    def rows_read(tx: Transaction) -> int:
        return int(tx.conn.exec_driver_sql(read).scalar_one())

    def check_and_look(tx: Transaction) -> tuple[int, int]:
        kept.check(tx, "acme", {LimitName.FILES: 1, LimitName.STORED_BYTES: 1}, world.settings)
        before = rows_read(tx)
        tx.conn.exec_driver_sql("select count(filename) from files")
        return before, rows_read(tx)

    assert world.db.run(check_and_look) == (0, 100_000)
