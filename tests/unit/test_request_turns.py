"""Turns between tenants at one API process: the one with the fewest requests in work is next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from penstock.api.http import request_turns
from penstock.api.http.request_turns import NOBODY, RequestTurn, RequestTurns
from penstock.domain.api_errors import TooMany


def run(places: int, body: Callable[[RequestTurns], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(body(RequestTurns(places, alone=1)), 10)

    asyncio.run(main())


async def settled() -> None:
    """Everything that can go on has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


class Crowd:
    """Requests that come to turns; who was let in, in order."""

    def __init__(self, all_turns: RequestTurns) -> None:
        self.turns = all_turns
        self.let_in: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.inside: dict[str, list[RequestTurn]] = {}

    async def come(self, tenant: str, count: int = 1) -> None:
        self.tasks += [asyncio.create_task(self._enter(tenant)) for _ in range(count)]
        await settled()

    async def _enter(self, tenant: str) -> None:
        turn = RequestTurn(self.turns, tenant)
        await turn.enter()
        self.let_in.append(tenant)
        self.inside.setdefault(tenant, []).append(turn)

    async def leave(self, tenant: str) -> None:
        self.inside[tenant].pop().leave()
        await settled()


def test_a_lone_tenant_has_all_places_and_whoever_comes_then_is_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_turns, "LONGEST_SECONDS", 60.0)

    async def body(all_turns: RequestTurns) -> None:
        crowd = Crowd(all_turns)
        await crowd.come("many", 100)
        assert crowd.let_in == ["many"] * 3
        await crowd.come("one")
        await crowd.come("two", 2)
        for _ in range(4):
            await crowd.leave("many")
        assert crowd.let_in[3:] == ["one", "two", "many", "many"]
        for task in crowd.tasks:
            task.cancel()

    run(3, body)


def test_places_are_shared_evenly_while_several_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_turns, "LONGEST_SECONDS", 60.0)

    async def body(all_turns: RequestTurns) -> None:
        crowd = Crowd(all_turns)
        await crowd.come("a", 200)
        await crowd.come("b", 200)
        await crowd.come("c", 200)
        for _ in range(60):  # whoever has most inside goes first
            await crowd.leave(max(crowd.inside, key=lambda tenant: len(crowd.inside[tenant])))
        assert {tenant: len(inside) for tenant, inside in crowd.inside.items()} == {"a": 2, "b": 2, "c": 2}
        for task in crowd.tasks:
            task.cancel()

    run(6, body)


def test_between_two_steps_of_one_tenant_another_is_let_in_once_however_soon_it_leaves() -> None:
    async def body(all_turns: RequestTurns) -> None:
        served = 0

        async def short() -> None:
            nonlocal served
            turn = RequestTurn(all_turns, "many")
            await turn.enter()
            served += 1
            turn.leave()

        stepping = RequestTurn(all_turns, "one")
        await stepping.enter()
        crowd = asyncio.gather(*(short() for _ in range(300)))
        for steps in range(1, 51):
            await asyncio.sleep(0)
            assert served <= steps
        assert served >= 40, "and it is let in again and again"
        stepping.leave()
        await crowd
        assert served == 300

    run(8, body)


def test_whoever_asked_lately_keeps_a_share_of_the_places_free_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_turns, "LONGEST_SECONDS", 60.0)
    now = 0.0

    async def body() -> None:
        nonlocal now
        crowd = Crowd(RequestTurns(12, alone=2, clock=lambda: now))
        await crowd.come("many", 100)
        assert len(crowd.inside["many"]) == 24, "alone"
        await crowd.come("one")
        assert len(crowd.inside["one"]) == 1, "it waits for none of them"
        for _ in range(20):
            await crowd.leave("many")
        await crowd.leave("one")
        assert len(crowd.inside["many"]) == 6, "the other half is for one, who asks again and again"
        now += 3.0
        await crowd.leave("many")
        assert len(crowd.inside["many"]) == 24, "one has not been seen for a while"
        for task in crowd.tasks:
            task.cancel()

    asyncio.run(body())


def test_a_place_is_given_back_once_and_a_long_one_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_turns, "LONGEST_SECONDS", 0.05)

    async def body(all_turns: RequestTurns) -> None:
        slow, other = RequestTurn(all_turns, "slow"), RequestTurn(all_turns, "other")
        await slow.enter()
        await other.enter()  # waits until the first has been there for long enough
        slow.leave()
        slow.leave()
        third = asyncio.create_task(RequestTurn(all_turns, "third").enter())
        await settled()
        assert not third.done(), "the second has the one place"
        other.leave()
        await third

    run(1, body)


def test_who_is_away_has_no_place_meanwhile() -> None:
    async def body(all_turns: RequestTurns) -> None:
        polling, other = RequestTurn(all_turns, "a"), RequestTurn(all_turns, "b")
        await polling.enter()
        async with polling.away():
            await other.enter()
            other.leave()
        waiting = asyncio.create_task(other.enter())
        await settled()
        assert not waiting.done()
        polling.leave()
        await waiting

    run(1, body)


def test_those_without_a_known_key_never_have_more_than_two_places() -> None:
    async def body(all_turns: RequestTurns) -> None:
        crowd = Crowd(all_turns)
        await crowd.come(NOBODY, 50)
        assert crowd.let_in == [NOBODY] * 2
        await crowd.come("a", 3)
        assert crowd.let_in[2:] == ["a"] * 3
        for task in crowd.tasks:
            task.cancel()

    run(8, body)


def test_whoever_leaves_the_queue_takes_nobodys_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_turns, "_MOST_WAITING", 3)

    async def body(all_turns: RequestTurns) -> None:
        first = RequestTurn(all_turns, "a")
        await first.enter()
        waiting = [asyncio.create_task(RequestTurn(all_turns, "a").enter()) for _ in range(3)]
        await settled()
        with pytest.raises(TooMany):
            await RequestTurn(all_turns, "a").enter()
        for task in waiting[:2]:
            task.cancel()
        await settled()
        first.leave()
        await waiting[2]

    run(1, body)


def test_a_slow_client_has_no_turn_while_it_sends_and_waits_for_one_when_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_turns, "LONGEST_SECONDS", 60.0)
    monkeypatch.setattr(request_turns, "_CLIENT_SECONDS", 0.0)

    async def body(all_turns: RequestTurns) -> None:
        slow, other = RequestTurn(all_turns, "acme"), RequestTurn(all_turns, "acme")
        await slow.enter()
        slow.leave_soon()
        slow.stay()
        await asyncio.sleep(0.01)
        waits = asyncio.create_task(other.enter())
        await settled()
        assert not waits.done(), "who took no time has its turn"
        slow.leave_soon()
        await waits
        back = asyncio.create_task(slow.enter())
        await settled()
        assert not back.done(), "the other has it"
        other.leave()
        await back
        await slow.enter()

    run(1, body)
