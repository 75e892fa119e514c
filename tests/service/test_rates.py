"""Rates over several processes that share one bucket in a real Redis; each `Rates` here is one process's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from redis import Redis

from penstock.domain.api_errors import TooMany
from penstock.domain.limits.limit import LimitName
from penstock.service.limits.rates import GRANTS, Rate, Rates
from penstock.wire.rate_buckets import RateBuckets

NOWHERE = "redis://127.0.0.1:1/0"


def rate(per_minute: int, owner: str = "tenant:acme") -> Rate:
    return Rate(owner, LimitName.REQUESTS_PER_MINUTE, per_minute)


def run(url: str, processes: int, body: Callable[[list[Rates]], Awaitable[None]]) -> None:
    async def main() -> None:
        all_rates = [Rates(RateBuckets(url, 2.0)) for _ in range(processes)]
        try:
            await asyncio.wait_for(body(all_rates), 60)
        finally:
            for one in all_rates:
                await one.close()

    asyncio.run(main())


async def passed(rates: Rates, one: Rate, amount: int = 1) -> bool:
    try:
        await rates.take(one, amount)
    except TooMany:
        return False
    return True


def level(url: str, one: Rate) -> float:
    with Redis.from_url(url) as redis:
        found = redis.hget(f"penstock-rate:{one.bucket}", "level")
        return float(found) if found else one.per_minute


@pytest.mark.parametrize("per_minute", [1_000, 60, 1])
def test_eight_processes_together_let_through_no_more_than_the_stated_bound(redis_url: str, per_minute: int) -> None:
    async def body(all_rates: list[Rates]) -> None:
        began = time.monotonic()
        takes = [passed(all_rates[n % 8], rate(per_minute)) for n in range(10 * per_minute)]
        let_through = sum(await asyncio.gather(*takes))
        refilled = (time.monotonic() - began) * per_minute / 60
        assert per_minute <= let_through <= per_minute + 8 * max(1, per_minute // GRANTS) + refilled + 1

    run(redis_url, 8, body)


def test_what_was_let_through_beyond_it_is_paid_back(redis_url: str) -> None:
    async def body(all_rates: list[Rates]) -> None:
        one = rate(600)
        began, let_through = time.monotonic(), 0
        while time.monotonic() - began < 6:
            let_through += sum(await asyncio.gather(*(passed(rates, one) for rates in all_rates for _ in range(20))))
            await asyncio.sleep(0.05)
        seconds = time.monotonic() - began
        assert let_through <= 600 + 8 * (600 // GRANTS) + 10 * seconds

    run(redis_url, 8, body)


def test_who_is_within_its_rate_waits_for_no_round_trip(redis_url: str) -> None:
    async def body(all_rates: list[Rates]) -> None:
        [rates] = all_rates
        taking = rates.take(rate(6_000), 1)
        with pytest.raises(StopIteration):  # it is done without having waited for anything
            taking.send(None)  # type: ignore[attr-defined] # a coroutine

    run(redis_url, 1, body)


def test_what_a_process_does_not_use_goes_back(redis_url: str) -> None:
    async def body(all_rates: list[Rates]) -> None:
        one = rate(10_000)
        await all_rates[0].take(one, 100)
        await asyncio.sleep(0.3)
        assert level(redis_url, one) < 9_850
        await asyncio.sleep(3)
        assert level(redis_url, one) >= 9_900

    run(redis_url, 1, body)


def test_a_refusal_says_when_to_ask_again_and_then_it_is_let_through(redis_url: str) -> None:
    async def body(all_rates: list[Rates]) -> None:
        [rates] = all_rates
        one = rate(60)
        while await passed(rates, one):
            pass
        with pytest.raises(TooMany) as refused:
            await rates.take(one, 1)
        assert "requests_per_minute of your tenant is 60" in refused.value.message
        seconds = int(refused.value.headers["retry-after"])
        assert 1 <= seconds <= 3
        assert rates.state(one).remaining == 0
        await asyncio.sleep(seconds)
        await rates.take(one, 1)

    run(redis_url, 1, body)


def test_more_than_a_minute_holds_is_refused_for_good(redis_url: str) -> None:
    async def body(all_rates: list[Rates]) -> None:
        with pytest.raises(TooMany) as refused:
            await all_rates[0].take(rate(60), 61)
        assert refused.value.headers == {"x-should-retry": "false"}

    run(redis_url, 1, body)


def test_what_is_known_only_afterwards_is_paid_and_what_was_too_much_comes_back(redis_url: str) -> None:
    async def body(all_rates: list[Rates]) -> None:
        [rates] = all_rates
        one = rate(1_000)
        await rates.take(one, 500)
        rates.charge(one, 700)
        await rates.look(one)
        assert not await passed(rates, one, 100)
        rates.charge(one, -900)
        await rates.look(one)
        assert await passed(rates, one, 500)

    run(redis_url, 1, body)


def test_without_redis_each_process_allows_the_whole_rate_by_itself() -> None:
    async def body(all_rates: list[Rates]) -> None:
        for rates in all_rates:
            found = [await passed(rates, rate(300)) for _ in range(1_000)]
            assert 300 <= sum(found) <= 300 + 300 // GRANTS + 2

    run(NOWHERE, 2, body)


def test_one_owner_never_pays_for_another(redis_url: str) -> None:
    async def body(all_rates: list[Rates]) -> None:
        [rates] = all_rates
        while await passed(rates, rate(60)):
            pass
        assert await passed(rates, rate(60, "tenant:other"))
        assert await passed(rates, rate(60, "key:key_1"))

    run(redis_url, 1, body)
