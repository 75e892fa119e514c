"""Moves: the database enforces the same two state machines as the domain, and the shapes of rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy.exc
from sqlalchemy import text
from store.world import World

from penstock.domain.models.version import MOVES as VERSION_MOVES
from penstock.domain.pools.switch import MOVES as SWITCH_MOVES
from penstock.domain.work.batch import MOVES as BATCH_MOVES
from penstock.domain.work.batch import TERMINAL, BatchState
from penstock.domain.work.slice import MOVES as SLICE_MOVES
from penstock.domain.work.slice import SliceState


@contextmanager
def refused(message: str) -> Iterator[None]:
    """The database refuses what happens inside, with these words."""
    with pytest.raises(sqlalchemy.exc.IntegrityError, match=message):
        yield


def test_the_legal_moves_in_the_database_are_the_domains(world: World) -> None:
    rows = {(r.machine, r.was, r.becomes) for r in world.rows("select machine, was, becomes from legal_moves")}
    batch = {("batch", str(was), str(to)) for was, becomes in BATCH_MOVES.items() for to in becomes}
    slice = {("slice", str(was), str(to)) for was, becomes in SLICE_MOVES.items() for to in becomes}
    version = {("version", str(was), str(to)) for was, becomes in VERSION_MOVES.items() for to in becomes}
    switch = {("switch", str(was), str(to)) for was, becomes in SWITCH_MOVES.items() for to in becomes}
    assert rows == batch | slice | version | switch


def test_every_move_of_a_slice_is_allowed_or_refused_as_the_domain_says(world: World) -> None:
    batch = world.batch(1)
    id = world.slices(batch)[0].id
    lease = "case when :to = 'running' then 1 end"
    for was, to in itertools.permutations(SliceState, 2):
        with world.db.engine.connect() as conn:  # never committed
            conn.execute(text("alter table slices disable trigger slices_move"))
            values = {"id": id, "to": was}
            conn.execute(text(f"update slices set state = :to, lease = {lease} where id = :id"), values)
            conn.execute(text("alter table slices enable trigger slices_move"))
            move = text(f"update slices set state = :to, lease = {lease} where id = :id")
            if to in SLICE_MOVES[was]:
                conn.execute(move, {"id": id, "to": to})
                continue
            with refused(f"a slice that is {was} may not become {to}"):
                conn.execute(move, {"id": id, "to": to})


def test_every_move_of_a_batch_is_allowed_or_refused_as_the_domain_says(world: World) -> None:
    batch = world.batch(1)
    finish = ", finish_as = case when :to in ('completed', 'cancelled', 'expired', 'failed') then :to else 'failed' end"
    for was, to in itertools.permutations(BatchState, 2):
        with world.db.engine.connect() as conn:  # never committed
            move = text(f"update batches set state = :to{finish}, completed = total where id = :id")
            conn.execute(text("alter table batches disable trigger batches_move"))
            conn.execute(move, {"id": batch, "to": was})
            conn.execute(text("alter table batches enable trigger batches_move"))
            if to in BATCH_MOVES[was]:
                conn.execute(move, {"id": batch, "to": to})
                continue
            with refused("never changes" if was in TERMINAL else f"a batch that is {was} may not become {to}"):
                conn.execute(move, {"id": batch, "to": to})


@pytest.mark.parametrize(
    "change", ["metadata = '{\"a\": 1}'", "failed = failed", "lane = 'flex'", "output_file = 'file-x'", "state = state"]
)
def test_an_ended_batch_never_changes(world: World, change: str) -> None:
    batch = world.batch(1)
    world.cancel(batch)
    world.assemble(batch)
    with refused("has ended and never changes"):
        world.sql(f"update batches set {change} where id = :id", id=batch)


@pytest.mark.parametrize("change", ["lease = 1", "state = 'done', lease = 1", "completed = 2", "completed = -1"])
def test_a_slice_cannot_have_an_impossible_shape(world: World, change: str) -> None:
    batch = world.batch(1)
    world.worker()
    with refused("slices"):
        world.sql(f"update slices set {change} where batch = :id", id=batch)


def test_a_slice_cannot_run_without_a_lease(world: World) -> None:
    batch = world.batch(1)
    world.worker()
    with refused("slices_check"):
        world.sql("update slices set state = 'running' where batch = :id", id=batch)
    world.claimed(world.worker())
    with refused("slices_check"):
        world.sql("update slices set lease = null where batch = :id", id=batch)


@pytest.mark.parametrize(
    "change",
    [
        "state = 'finalizing'",
        "state = 'cancelling'",
        "finish_as = 'paused'",
        "lease = 7",
        "total = -1",
        "input_key = null",
        "inline = true",
    ],
)
def test_a_batch_cannot_have_an_impossible_shape(world: World, change: str) -> None:
    batch = world.batch(1)
    with refused("batches"):
        world.sql(f"update batches set {change} where id = :id", id=batch)


def test_a_batch_cannot_complete_with_counts_that_do_not_add_up(world: World) -> None:
    batch = world.batch(2)
    world.finish(world.claimed(world.worker()))
    with refused("batches_check"):
        world.sql("update batches set state = 'completed', completed = 1 where id = :id", id=batch)


def test_a_segments_counts_are_the_lengths_of_its_lists(world: World) -> None:
    world.batch(2)
    claim = world.claimed(world.worker())
    world.flush(claim, 1, 1, 2)
    with refused("segments_check"):
        world.sql("update segments set completed = 1")
    with refused("segments_check"):
        world.sql("update segments set blob_key = 'also'")
