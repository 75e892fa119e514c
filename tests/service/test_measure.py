"""Measuring: settled slices teach their model's bytes per token, its mean answer, and how right estimates are."""

from __future__ import annotations

import pytest
from service.desk import Desk, request
from store import as_holder
from store.world import World

from penstock.domain.fleet.model import ModelFacts
from penstock.domain.work.slice import Claim
from penstock.formats import output
from penstock.service.lifecycle import measure
from penstock.store.fleet import models


def facts(world: World) -> ModelFacts | None:
    return world.db.run(lambda tx: models.facts(tx.conn)).get("tiny")


def refuse(world: World, claim: Claim, *numbers: int) -> None:
    """Record that these lines were refused: they cost no tokens."""
    records = [output.answered(claim.batch, n, f"q-{n}", 400, "req", b"{}") for n in numbers]
    world.db.run(as_holder.flush, claim, 2, records, None)


def again(world: World) -> int:
    """The keeper looks, 15 s later."""
    world.sql("update models set measured_at = measured_at - interval '15 s'")
    world.sql("update slices set done_at = done_at - interval '15 s'")
    return world.db.run(measure.measure)


def test_what_settled_is_measured_over_answered_lines(world: World) -> None:
    worker = world.worker()
    world.batch(4, 2)
    assert world.db.run(measure.measure) == 0
    first, other = world.claimed(worker), world.claimed(worker)
    world.flush(first, 1, 1, 2)
    refuse(world, first, 3, 4)
    world.db.run(as_holder.settle, first)
    world.finish(other)
    assert world.db.run(measure.measure) == 1
    # Two of four lines of the first slice (400 bytes, 40 tokens by estimate), both of the other (200 bytes, 20).
    assert facts(world) == ModelFacts(
        bytes_per_token=pytest.approx(400 / 12), output_tokens=2.0, tokens_scale=pytest.approx(20 / 40)
    )


def test_a_model_is_looked_at_again_only_if_slices_settled_since_and_not_at_once(world: World) -> None:
    worker = world.worker()
    world.batch(2, 2, 2)
    world.finish(world.claimed(worker))
    assert world.db.run(measure.measure) == 1
    world.finish(world.claimed(worker))
    assert world.db.run(measure.measure) == 0
    assert again(world) == 1
    assert again(world) == 0


def test_old_slices_teach_nothing_and_what_was_learnt_stays(world: World) -> None:
    worker = world.worker()
    world.batch(2, 2)
    world.finish(world.claimed(worker))
    world.db.run(measure.measure)
    learnt = facts(world)
    world.finish(world.claimed(worker))
    world.sql("update slices set done_at = done_at - interval '2 h' where state = 'done'")
    assert again(world) == 0
    assert facts(world) == learnt


def test_slices_without_an_answered_line_teach_nothing_and_are_not_looked_at_again(world: World) -> None:
    worker = world.worker()
    world.batch(2)
    claim = world.claimed(worker)
    refuse(world, claim, 1, 2)
    world.db.run(as_holder.settle, claim)
    assert world.db.run(measure.measure) == 1
    assert facts(world) == ModelFacts()
    assert again(world) == 0


def test_what_was_learnt_is_what_new_lines_are_estimated_by(world: World, desk: Desk) -> None:
    line = request("a", body={"model": "tiny", "max_tokens": 1_000})
    world.sql("update models set bytes_per_token = 2, output_tokens = 300, measured_at = now()")
    [slice] = world.slices(desk.validate(line))
    assert slice.tokens == len(line) // 2 + 300
    [slice] = world.slices(world.job(1))
    assert slice.tokens == (slice.plan_bytes - len("1\t\n")) // 2 + 300
