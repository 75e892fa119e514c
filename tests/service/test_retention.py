"""Retention: a tenant's batches and files go by its own time, another's by the platform's."""

from __future__ import annotations

import pytest
from service.broom import TWELVE, blobs, ended, insert, named, once, written
from service.desk import Desk
from sqlalchemy import text
from store.world import World

from penstock.domain.api_errors import BadRequest, NotFound
from penstock.service.admin import tenants
from penstock.service.core.transaction import Transaction


def days_pass(world: World, days: int) -> None:
    """Everything that has ended, or was uploaded, is so many days older."""

    def age(tx: Transaction) -> None:
        tx.conn.execute(text("set local session_replication_role = replica"))  # an ended batch never changes
        for column in ("completed_at", "cancelled_at", "expired_at", "failed_at"):
            tx.conn.execute(text(f"update batches set {column} = {column} - :days * interval '1 day'"), {"days": days})
        tx.conn.execute(text("update files set created_at = created_at - :days * interval '1 day'"), {"days": days})

    world.db.run(age)


def keep(world: World, tenant: str = "acme", **days: int | None) -> None:
    world.db.run(tenants.change, tenant, retention=days)


def test_a_tenants_own_time_stands_over_the_platforms_shorter_or_longer(desk: Desk, world: World) -> None:
    keep(world, batch=3)
    batch, others = ended(desk), world.batch(2, tenant="other")
    world.drain(others)
    days_pass(world, 2)
    assert once(desk, batches_seconds=86_400, pieces_seconds=9e6)["old_batches"] == 1, "the other tenant's"
    assert [row.id for row in world.rows("select id from batches")] == [batch]
    days_pass(world, 2)
    assert once(desk, batches_seconds=0, pieces_seconds=9e6)["old_batches"] == 1, "0 is the platform's, not its own"
    assert world.rows("select id from batches") == []
    assert blobs(world.settings) == {key for key in named(world) if key.startswith("acme/")}


def test_without_a_time_of_its_own_a_tenant_has_the_platforms(desk: Desk, world: World) -> None:
    keep(world, batch=1)
    keep(world, batch=None)
    ended(desk)
    days_pass(world, 2)
    assert "old_batches" not in once(desk, batches_seconds=3 * 86_400)
    assert "old_batches" not in once(desk, batches_seconds=0)
    assert once(desk, batches_seconds=86_400)["old_batches"] == 1


def test_files_go_so_long_after_the_last_batch_that_read_them(desk: Desk, world: World) -> None:
    keep(world, file=3)
    unread = written(desk)
    world.db.run(insert(unread))
    ended(desk)
    running = desk.validate(TWELVE)
    days_pass(world, 2)
    assert "old_files" not in once(desk)
    days_pass(world, 2)
    done = once(desk)
    assert done["old_files"] == 3, "the unread one, and the input and the output of what has ended"
    assert [row.id for row in world.rows("select id from files")] == [world.find(running).input_file]
    assert blobs(world.settings) == named(world) | {world.find(running).plan_key}
    desk.answer(running)
    desk.assemble(running)
    assert "old_files" not in once(desk), "its input was uploaded long ago, and its batch has ended just now"
    days_pass(world, 4)
    assert once(desk)["old_files"] == 2


def test_a_time_that_is_none_and_a_tenant_that_is_none_are_refused(world: World) -> None:
    for days in (0, -1, 3_651):
        with pytest.raises(BadRequest):
            keep(world, batch=days)
    with pytest.raises(NotFound):
        keep(world, "nobody", file=1)
