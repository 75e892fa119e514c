"""Hints that are doubled, late, out of order or foreign: a thousand of them do no more than the first ones did.

A hint says only that there may be work; what a worker does then, a claim decides. So the tasks' own functions are
called here with whatever may come out of a queue, over the real database.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from typing import Any

import pytest
from service.desk import Desk, request
from store.world import MODEL, World

from penstock.domain.work.holder import Holder
from penstock.domain.work.lane import LANES
from penstock.service.lifecycle import work
from penstock_worker.io.batch_tasks import BatchTasks
from penstock_worker.runtime.beat import Beat

CONTENT = b"\n".join(request(f"q{n}") for n in range(1, 6))
ODD = ["", "batch_", "batch_" + "0" * 26, "job_unknown", "' or 1=1 --", "ä" * 300, "%s", "file-1", "\x01\t\n"]


@pytest.fixture
def io(desk: Desk, world: World) -> BatchTasks:
    """An io worker's tasks."""
    return BatchTasks(world.db, desk.blobs, Beat(world.db, world.keeper, world.settings), world.keeper, world.settings)


def everything(world: World) -> list[Any]:
    """All rows that work could change."""
    tables = ("batches", "slices", "leases", "segments", "files", "intents", "events", "trail", "suspects", "counts")
    return [sorted(map(str, world.rows(f"select * from {table}"))) for table in tables]


def test_a_thousand_hints_for_what_is_not_due_change_nothing(desk: Desk, world: World, io: BatchTasks) -> None:
    ended = desk.validate(CONTENT)
    desk.answer(ended)
    desk.assemble(ended)
    failed, running, job = desk.validate(b"{"), desk.validate(CONTENT), world.job(2)
    cancelled, taken = desk.batch(CONTENT), desk.batch(CONTENT)
    world.cancel(cancelled)
    assert world.claim_batch(taken, "validate")
    finalizing = desk.validate(CONTENT)
    world.cancel(finalizing)
    assert world.claim_batch(finalizing, "assemble")
    stranger = Holder(uuid.uuid4(), "gpu", "unheard of", "host", 3)
    world.db.run(work.register, stranger, "ready", 8)
    before = everything(world)
    chance = random.Random(12)
    there = [ended, failed, running, job, cancelled, taken, finalizing]
    for _ in range(1_000):
        if chance.random() < 0.3:  # a hint for a model is heard by that model's workers: nothing of another's is theirs
            lanes = [lane for lane in LANES if chance.random() < 0.6]
            assert world.claim(stranger, *lanes) is None
        else:
            batch = chance.choice(there + ODD)
            assert "nothing to" in io.run(chance.choice(["validate", "assemble"]), batch)
    assert everything(world) == before


def test_a_thousand_hints_in_any_order_validate_and_assemble_each_batch_once(
    desk: Desk, world: World, io: BatchTasks
) -> None:
    batches = [desk.batch(CONTENT) for _ in range(4)]
    chance, told = random.Random(12), Counter[str]()
    for number in range(1_000):
        kind, batch = chance.choice(["validate", "assemble"]), chance.choice(batches)
        told[kind] += "nothing to" not in io.run(kind, batch)
        if number == 500:
            desk_answers(desk, world)
    assert told == {"validate": 4, "assemble": 4}
    leases = world.rows("select kind, batch, count(*) from leases where kind <> 'slice' group by 1, 2")
    assert sorted(row[2] for row in leases) == [1] * 8
    for batch in batches:
        found = world.find(batch)
        assert (found.state, found.total, found.completed) == ("completed", 5, 5)
        assert len((desk.result(batch, "output") or b"").splitlines()) == 5
    assert world.one("select count(*) from files where purpose = 'batch_output'") == 4


def desk_answers(desk: Desk, world: World) -> None:
    """Everything that is ready is answered, by a worker that hears a hint for each slice five times."""
    worker = world.worker(MODEL)
    claims = [world.claim(worker) for _ in range(5 * 8)]
    for claim in filter(None, claims):
        world.finish(claim)
    while claim := world.claim(worker):
        world.finish(claim)
