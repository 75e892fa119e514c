"""A tenant's budget of a month: summed from recorded lines, told once, in force on what runs, over with the month."""

from __future__ import annotations

import pytest
from store.world import MODEL, World

from penstock.domain.api_errors import BadRequest, NotFound, QuotaSpent
from penstock.domain.work.batch import BatchState, PauseReason
from penstock.service.control import budgets, steer
from penstock.service.webhooks import endpoints
from penstock.store.accounts import budgets as rows


def spend(world: World, part: float, of: str = "10") -> None:
    """Use such a part of a budget, by calls of this hour."""
    world.sql(
        "insert into usage_calls (tenant, model, hour, requests, input_tokens, cached_tokens, output_tokens,"
        " reasoning_tokens, reused_output_tokens, gpu_microseconds, token_cost, gpu_cost)"
        " values ('acme', :model, date_trunc('hour', now(), 'UTC'), 1, 0, 0, 0, 0, 0, 0, :cost, 0)"
        " on conflict (tenant, hour, model, api_key) do update"
        " set token_cost = usage_calls.token_cost + excluded.token_cost",
        cost=int(part * float(of) * 10**12),
        model=MODEL,
    )


def events(world: World) -> list[str]:
    return [row.type for row in world.rows("select type from events where batch is null order by created_at, id")]


def look(world: World) -> int:
    return budgets.look_at_all(world.db, world.settings)


@pytest.fixture
def world(world: World) -> World:
    """The tenant has a budget of ten."""
    world.db.run(budgets.set_budget, "acme", "10")
    return world


def test_it_warns_once_at_four_fifths_and_says_once_that_it_is_spent(world: World) -> None:
    world.db.run(
        endpoints.create, "acme", "", "https://1.1.1.1/", ["budget.warning", "budget.spent"], None, world.settings
    )
    spend(world, 0.7)
    assert [look(world), events(world)] == [0, []]
    spend(world, 0.1)
    for _ in range(2):
        look(world)
        assert events(world) == ["budget.warning"]
    spend(world, 0.2)
    for _ in range(2):
        look(world)
        assert events(world) == ["budget.warning", "budget.spent"]
    owed = world.rows("select type, object from deliveries order by type")
    assert [(row.type, row.object) for row in owed] == [("budget.spent", "acme"), ("budget.warning", "acme")]


def test_spent_it_pauses_what_runs_with_its_reason_and_a_larger_one_lets_it_go_on(world: World) -> None:
    batch, other = world.batch(3), world.batch(2)
    world.db.run(steer.pause, "acme", "batch", other)
    spend(world, 1.0)
    assert look(world) == 1
    assert look(world) == 0
    found = world.find(batch)
    assert (found.state, found.paused_as) == (BatchState.PAUSED, PauseReason.BUDGET)
    assert world.find(other).paused_as is PauseReason.BY_HAND
    with pytest.raises(QuotaSpent):
        world.db.run(steer.resume, "acme", "batch", batch, world.settings)
    later = world.batch(1)
    assert look(world) == 1, "what was validated meanwhile"
    world.db.run(budgets.set_budget, "acme", "20")
    assert look(world) == 2
    assert world.find(batch).state is world.find(later).state is BatchState.IN_PROGRESS
    assert world.find(batch).paused_as is None
    assert world.find(other).state is BatchState.PAUSED, "its tenant said so"


def test_what_its_tenant_pauses_meanwhile_stays_paused(world: World) -> None:
    batch = world.batch(1)
    spend(world, 1.0)
    look(world)
    world.db.run(steer.pause, "acme", "batch", batch)
    world.db.run(budgets.set_budget, "acme", None)
    assert look(world) == 0
    assert world.find(batch).state is BatchState.PAUSED


def test_a_new_month_begins_at_nothing(world: World) -> None:
    batch = world.batch(1)
    spend(world, 1.0)
    look(world)
    world.sql("update usage_calls set hour = hour - interval '40 days'")
    world.sql("update tenants set budget_month = budget_month - interval '1 month' where id = 'acme'")
    assert look(world) == 1
    assert world.find(batch).state is BatchState.IN_PROGRESS
    found = world.db.run(lambda tx: rows.get(tx.conn, "acme"))
    assert found is not None
    assert (found.used, found.state) == (0, None)


def test_recorded_lines_count_at_their_cost_before_and_after_they_are_swept(world: World) -> None:
    batch = world.batch(2)
    world.drain(batch)
    spent = world.db.run(lambda tx: rows.spent(tx.conn, "acme"))
    cost = world.find(batch).cost
    assert spent == cost.tokens + cost.gpu > 0


def test_another_tenant_has_none_of_it(world: World) -> None:
    world.tenant("rival")
    spend(world, 2.0)
    look(world)
    found = world.db.run(lambda tx: rows.get(tx.conn, "rival"))
    assert found is not None
    assert (found.budget, found.state) == (None, None)


def test_what_is_no_budget_is_refused(world: World) -> None:
    for wrong in ("-1", "ten", "1e3", "nan", "0.1234567"):
        with pytest.raises(BadRequest):
            world.db.run(budgets.set_budget, "acme", wrong)
    with pytest.raises(NotFound):
        world.db.run(budgets.set_budget, "nobody", "1")
