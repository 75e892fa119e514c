"""Each answered line costs once what its price said at that moment, whatever happens around it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from store import as_holder
from store.world import MODEL, World, records

from penstock.domain.accounts.cost import Cost, Savings
from penstock.domain.api_errors import BadRequest, LeaseLost, NotFound
from penstock.formats import output
from penstock.service.admin import prices
from penstock.service.lifecycle import dispatch
from penstock.store.accounts import prices as price_rows

# Line 3 is reused: 3 input tokens are cached, 2 output tokens cost nothing. Any other: 3 input and 2 output tokens.
ASKED = 3 * 2_000_000 + 2 * 3_000_000
REUSED = 3 * 1_000_000
GPU = 1_000 * 500_000


def test_a_line_costs_its_tokens_and_its_gpu_time_and_a_reused_one_cached_input_only(world: World) -> None:
    batch = world.batch(3)
    claim = world.claimed(world.worker())
    world.flush(claim, 1, 1, 2, 3)
    assert world.find(batch).cost == Cost(3_000, 2 * ASKED + REUSED, 3 * GPU)
    assert world.find(batch).currency == "EUR"


def test_what_was_spared_is_told_by_what_spared_it_and_is_what_it_would_have_cost_more(world: World) -> None:
    batch = world.batch(7)
    claim = world.claimed(world.worker())
    world.flush(claim, 1, 1, 3, 6)
    body = b'{"usage":{"prompt_tokens":10,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":8}}}'
    cached = output.answered(batch, 7, "q-7", 200, "req", body)
    for _ in range(2):
        world.db.run(as_holder.flush, claim, 2, [cached], None)
    world.price("4", "2", "6", "1")
    world.flush(claim, 3, 2, 4, 5)
    found = world.find(batch)
    reused = 3 * (2 - 1) + 2 * 3
    assert found.savings == Savings(8 * (2 - 1) * 10**6, reused * 10**6, reused * 10**6)
    used = found.usage
    assert (used.prefix_tokens, used.equal_input_tokens, used.equal_output_tokens) == (8, 3, 2)
    assert (used.shared_input_tokens, used.shared_output_tokens) == (3, 2)
    nothing_spared = 6 * ASKED + 10 * 2_000_000 + 4 * 3_000_000 + 3 * ASKED  # lines 2, 4 and 5 at twice the price
    assert found.cost.tokens + found.savings.total == nothing_spared
    world.db.run(as_holder.settle, claim)
    world.assemble(batch)
    ended = world.find(batch)
    assert (ended.savings, ended.usage) == (found.savings, found.usage)
    world.sql("alter table batches disable trigger user")
    world.sql("update batches set equal_input_tokens = null, prefix_saved = null")
    world.sql("alter table batches enable trigger user")
    assert world.find(batch).savings is None, "it ended before this was kept"


def test_a_flush_that_is_repeated_or_that_fails_costs_once_or_nothing(world: World) -> None:
    batch = world.batch(3)
    claim = world.claimed(world.worker())
    for _ in range(3):
        world.flush(claim, 1, 1)
    world.flush(claim, 2, 2, failed=True)
    assert world.find(batch).cost.tokens == ASKED


def test_a_reaped_holder_costs_nothing_and_who_asks_again_costs_once(world: World) -> None:
    batch = world.batch(2)
    late = world.claimed(world.worker())
    world.flush(late, 1, 1)
    world.lapse(batch)
    world.db.run(dispatch.reap, batch)
    with pytest.raises(LeaseLost):
        world.flush(late, 2, 2)
    world.finish(world.claimed(world.worker()))
    world.assemble(batch)
    assert world.find(batch).cost == Cost(2_000, 2 * ASKED, 2 * GPU)


def test_a_new_price_in_the_middle_of_a_batch_changes_nothing_that_is_recorded(world: World) -> None:
    batch = world.batch(4)
    claim = world.claimed(world.worker())
    world.flush(claim, 1, 1, 2)
    before = world.find(batch).cost
    world.price("4", "2", "6", "1")
    assert world.find(batch).cost == before
    world.flush(claim, 2, 4)
    world.flush(claim, 1, 1, 2)
    assert world.find(batch).cost == before + Cost(1_000, 2 * ASKED, 2 * GPU)


def test_a_price_of_tomorrow_does_not_count_today_and_none_begins_yesterday(world: World) -> None:
    now = datetime.now(UTC)
    tomorrow = now + timedelta(days=1)
    assert world.db.run(prices.set_price, MODEL, input="9", valid_from=tomorrow).valid_from == tomorrow
    assert world.db.run(prices.set_price, MODEL, output="7", valid_from=now - timedelta(days=1)).valid_from >= now
    price = world.db.run(lambda tx: price_rows.valid(tx.conn))[MODEL]
    assert (price.input, price.cached_input, price.output, price.gpu) == (2_000_000, 1_000_000, 7_000_000, 500_000)
    assert len(world.db.run(prices.page)) == 3


def test_a_model_without_a_price_costs_nothing(world: World) -> None:
    world.sql("delete from prices")
    batch = world.batch(1)
    world.flush(world.claimed(world.worker()), 1, 1)
    assert world.find(batch).cost == Cost(1_000, 0, 0)
    assert world.find(batch).currency is None


def test_amounts_that_are_not_exact_and_other_currencies_are_refused(world: World) -> None:
    for amount in ("0.0000001", "-1", "1e3", "nan", "", "1,5", "1" * 10):
        with pytest.raises(BadRequest):
            world.db.run(prices.set_price, MODEL, input=amount)
    for currency in ("USD", "euro"):
        with pytest.raises(BadRequest):
            world.db.run(prices.set_price, MODEL, input="1", currency=currency)
    with pytest.raises(NotFound):
        world.db.run(prices.set_price, "unheard-of", input="1")


def test_the_price_in_python_is_the_price_in_sql(world: World) -> None:
    batch = world.batch(6)
    claim = world.claimed(world.worker())
    found = records(claim, 1, 2, 3, 4, 5, 6)
    world.db.run(as_holder.flush, claim, 1, found, None)
    price = world.db.run(lambda tx: price_rows.valid(tx.conn))[MODEL]
    assert world.find(batch).cost.tokens == sum(price.tokens(record.usage) for record in found)


def test_a_price_as_large_as_may_be_overflows_nothing(world: World) -> None:
    world.price("999999999", "999999999", "999999999", "999999999")
    batch = world.batch(1)
    claim = world.claimed(world.worker())
    world.db.run(as_holder.flush, claim, 1, records(claim, 1), None, gpu_microseconds=10**15)
    assert world.find(batch).cost == Cost(10**15, 5 * 999_999_999 * 10**6, 10**15 * 999_999_999 * 10**6)
