"""What a tenant used is told once for each recorded line, before its segments are swept and after."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain, combinations
from typing import Any

import pytest
from service import broom
from service.desk import Desk
from store.world import ANSWER, MODEL, World

from penstock.domain.accounts.cost import Cost
from penstock.domain.accounts.tokens import Usage
from penstock.domain.accounts.usage_report import MOST_KEYS, UsageGroup, UsageRow
from penstock.domain.api_errors import NotFound
from penstock.domain.work.lane import Lane
from penstock.service.admin import keys, usage
from penstock.service.calls import call_usage
from penstock.store.accounts import usage as calls_used

WORK = frozenset({UsageGroup.MODEL, UsageGroup.BATCH})
EVERY = frozenset(UsageGroup)
GROUPINGS = [frozenset(some) for some in chain.from_iterable(combinations(UsageGroup, n) for n in range(5))]


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
    before = used(world, by=WORK)
    assert world.rows("select 1 from segments") != []
    broom.once(desk)
    assert world.rows("select 1 from segments") == []
    assert used(world, by=WORK) == before
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


def total(rows: list[UsageRow]) -> tuple[Any, ...]:
    """What rows come to, money and tokens."""
    none = UsageRow(datetime.now(UTC), None, None, None, None, None, 0, Usage(), Cost(), 0)
    for one in rows:
        more = {"requests": none.requests + one.requests, "usage": none.usage + one.usage}
        none = replace(none, **more, cost=none.cost + one.cost, saved=none.saved + one.saved)
    return none.requests, none.usage, none.cost, none.saved


def of_one_key(desk: Desk, api_key: str | None, lane: Lane) -> None:
    """A batch of a key, ended, with answers to its twelve lines."""
    batch = desk.validate(broom.TWELVE, api_key=api_key, lane=lane)
    desk.answer(batch, bodies=dict.fromkeys(range(1, 13), ANSWER))
    desk.assemble(batch)


def test_every_grouping_comes_to_the_same_total_before_the_sweep_and_after(desk: Desk, world: World) -> None:
    key_id, _ = world.db.run(keys.create, "acme", "nightly")
    of_one_key(desk, key_id, Lane.FLEX)
    of_one_key(desk, key_id, Lane.STANDARD)
    of_one_key(desk, None, Lane.STANDARD)
    calls = Usage(input_tokens=100, cached_tokens=60, output_tokens=50, reused_output_tokens=20)
    for key in (key_id, "key_gone", None):
        world.db.run(lambda tx, key=key: calls_used.add_calls(tx.conn, "acme", MODEL, 2, calls, 7, key))
    whole = total(used(world))
    assert whole[0] == 3 * 12 + 3 * 2
    before = {by: used(world, by=by) for by in GROUPINGS}
    assert {by: total(rows) for by, rows in before.items()} == dict.fromkeys(GROUPINGS, whole)
    broom.once(desk)
    assert world.rows("select 1 from segments") == []
    for by, rows in before.items():
        assert sorted(used(world, by=by), key=repr) == sorted(rows, key=repr)
    apart = {(one.batch, one.lane, one.api_key, one.key_name): one.requests for one in before[EVERY]}
    assert apart == {
        (True, "flex", key_id, "nightly"): 12, (True, "standard", key_id, "nightly"): 12,
        (True, "standard", None, None): 12, (False, None, key_id, "nightly"): 2,
        (False, None, "key_gone", None): 2, (False, None, None, None): 2,
    }  # fmt: skip


def test_what_was_kept_before_keys_and_lanes_were_has_none(world: World) -> None:
    for table in ("usage_lines", "usage_calls"):
        world.sql(f"insert into {table} select 'acme', 'tiny', date_trunc('hour', now()), 1, 3, 0, 2, 0, 0, 0, 5, 0")
    apart = {(one.batch, one.lane, one.api_key): one.requests for one in used(world, by=EVERY)}
    assert apart == {(True, None, None): 1, (False, None, None): 1}


def test_of_very_many_keys_an_hour_keeps_the_first_apart_and_counts_all(desk: Desk, world: World) -> None:
    by_key = frozenset({UsageGroup.API_KEY, UsageGroup.BATCH})
    for first, last in ((0, 60), (50, 102)):
        sums = {("acme", MODEL, f"key_{number:03}"): (1, Usage(1)) for number in range(first, last)}
        world.db.run(call_usage.add, sums)
    found = {one.api_key: one.requests for one in used(world, by=by_key)}
    assert (len(found), found["key_050"], found["key_099"], found[None]) == (MOST_KEYS + 1, 2, 1, 2)
    for key in ("key_a", "key_b"):
        of_one_key(desk, key, Lane.STANDARD)
    world.sql("""
        insert into usage_lines
        select 'acme', :model, date_trunc('hour', now(), 'UTC'), 1, 3, 0, 2, 0, 0, 0, 5, 0, 'standard', 'key_' || n
        from generate_series(1, :most) n""", model=MODEL, most=MOST_KEYS - 1)  # fmt: skip
    before = total(used(world))
    broom.once(desk)
    assert total(used(world)) == before
    lines = {one.api_key: one.requests for one in used(world, by=by_key) if one.batch}
    assert (len(lines), lines["key_a"], lines[None]) == (MOST_KEYS + 1, 12, 12)


def test_a_page_with_very_many_rows_ends_with_a_whole_span_and_the_next_goes_on(world: World) -> None:
    now = datetime.now(UTC)
    world.sql("""
        insert into usage_calls
        select 'acme', 'm' || n % 60, date_trunc('hour', cast(:now as timestamptz), 'UTC') - n % 3 * interval '1 hour',
               1, 1, 0, 0, 0, 0, 0, 0, 0, 'key_' || n from generate_series(1, 24000) n""", now=now)  # fmt: skip
    asked = {"end": now, "width": timedelta(hours=1), "limit": 9, "by": frozenset({UsageGroup.API_KEY})}
    start, pages = now - timedelta(hours=3), []
    while start is not None:
        page = world.db.run(usage.report, "acme", start=start, **asked)
        pages.append([len(span.used) for span in page.spans])
        start = page.next_start
    assert pages == [[0, 8_000, 8_000], [8_000]]
