"""What a tenant used is told once for each recorded line, before its segments are swept and after."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from service import broom
from service.desk import Desk
from store.world import ANSWER, MODEL, World

from penstock.domain.accounts.tokens import Usage
from penstock.domain.accounts.usage_report import UsageRow
from penstock.domain.api_errors import NotFound
from penstock.service.admin import usage
from penstock.store.accounts import usage as calls_used


def used(world: World, tenant: str = "acme", **more: Any) -> list[UsageRow]:
    now = datetime.now(UTC)
    span = {"start": now - timedelta(hours=1), "end": now, "width": timedelta(hours=1), "limit": 9} | more
    return [one for span in world.db.run(usage.report, tenant, **span).spans for one in span.used]


def test_usage_is_the_same_before_and_after_the_sweep_and_equals_the_batches(desk: Desk, world: World) -> None:
    found = []
    for _ in range(2):
        batch = desk.validate(broom.TWELVE)
        desk.answer(batch, bodies=dict.fromkeys(range(1, 13), ANSWER))
        desk.assemble(batch)
        found.append(world.find(batch))
    before = used(world, by_model=True, by_batch=True)
    assert world.rows("select 1 from segments") != []
    broom.once(desk)
    assert world.rows("select 1 from segments") == []
    assert used(world, by_model=True, by_batch=True) == before
    assert sum(one.requests for one in before) == 24
    assert sum(one.usage.input_tokens for one in before) == sum(one.usage.input_tokens for one in found)
    assert sum(one.cost.tokens for one in before) == sum(one.cost.tokens for one in found) > 0
    assert sum(one.cost.gpu_microseconds for one in before) == sum(one.cost.gpu_microseconds for one in found)
    assert {one.batch for one in before} == {True}
    desk_model = {one.model for one in before}
    assert used(world, models=sorted(filter(None, desk_model))) == used(world)
    with pytest.raises(NotFound):
        used(world, models=["other"])


def test_what_was_cached_or_answered_already_is_told_as_money_that_was_saved(world: World) -> None:
    calls = Usage(input_tokens=100, cached_tokens=60, output_tokens=50, reused_output_tokens=20)
    for _ in range(2):
        world.db.run(lambda tx: calls_used.add_calls(tx.conn, "acme", MODEL, 1, calls, 0))
    [found] = used(world)
    assert found.saved == 2 * (60 * (2 - 1) + 20 * 3) * 10**6, "by the world's prices, in picounits"
    world.sql("delete from prices")
    assert [one.saved for one in used(world)] == [0]


def test_a_tenant_sees_its_own_usage_only(desk: Desk, world: World) -> None:
    broom.ended(desk)
    world.tenant("rival")
    assert used(world) != []
    assert used(world, "rival") == []


def test_spans_are_pages_in_the_order_of_time(world: World) -> None:
    end = datetime(2026, 1, 3, 5, 30, tzinfo=UTC)
    span = {"end": end, "width": timedelta(days=1), "limit": 2}
    first = world.db.run(usage.report, "acme", start=datetime(2026, 1, 1, 3, 45, tzinfo=UTC), **span)
    assert [one.start.hour for one in first.spans] == [3, 3]
    assert first.next_start == first.spans[-1].end == datetime(2026, 1, 3, 3, tzinfo=UTC)
    last = world.db.run(usage.report, "acme", start=first.next_start, **span)
    assert (len(last.spans), last.next_start) == (1, None)
