"""Which adapters are in an engine, and when one goes: a played engine that notes what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from penstock.domain.adapter import AdapterFault
from penstock.domain.work.rank import Rank
from penstock_worker.admission.gate import Gate, Ticket
from penstock_worker.engine.adapters.adapter_residency import AdapterResidency, Resident

PATIENCE_SECONDS = 0.05


class Played:
    """An engine with so many places, which are never more than full."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.inside: list[str] = []
        self.told: list[str] = []
        self.generation = 1
        self.broken: set[str] = set()
        self.residency = AdapterResidency(
            slots, self.load, self.unload, lambda: self.generation, patience_seconds=PATIENCE_SECONDS
        )

    async def load(self, id: str) -> str:
        await asyncio.sleep(0)
        if id in self.broken:
            raise AdapterFault(f"{id} is broken")
        self.inside.append(id)
        self.told.append(f"+{id}")
        assert len(self.inside) <= self.slots, "one more than there is room for"
        return f"{id}@1"

    async def unload(self, name: str) -> None:
        await asyncio.sleep(0)
        id = name.removesuffix("@1")
        self.inside.remove(id)
        self.told.append(f"-{id}")

    async def entered(self, id: str) -> Resident:
        with self.residency.wanted(id):
            while True:
                await self.residency.ready(id)
                if one := self.residency.enter(id):
                    return one


def played(slots: int, test: Callable[[Played], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(20):
            await test(Played(slots))

    asyncio.run(run())


def test_it_is_loaded_once_for_all_who_want_it_and_the_least_recently_used_makes_room() -> None:
    async def test(engine: Played) -> None:
        for one in await asyncio.gather(*(engine.entered("a") for _ in range(5)), engine.entered("b")):
            engine.residency.leave(one)
        engine.residency.leave(await engine.entered("a"))
        engine.residency.leave(await engine.entered("c"))
        assert engine.told == ["+a", "+b", "-b", "+c"]

    played(2, test)


def test_who_is_inside_is_never_unloaded_and_who_waits_gets_his_turn() -> None:
    async def test(engine: Played) -> None:
        first = await engine.entered("a")
        waiting = asyncio.create_task(engine.entered("b"))
        while again := engine.residency.enter("a"):  # until the other has waited long enough
            engine.residency.leave(again)
            await asyncio.sleep(0)
        assert first.leaving
        assert engine.told == ["+a"]
        engine.residency.leave(first)
        assert (await waiting).name == "b@1"

    played(1, test)


def test_three_that_always_want_in_and_one_place_go_in_turn_without_an_end_of_waiting() -> None:
    async def test(engine: Played) -> None:
        done = dict.fromkeys("abc", 0)

        async def lines(id: str) -> None:
            while min(done.values()) < 3:
                one = await engine.entered(id)
                await asyncio.sleep(PATIENCE_SECONDS / 10)
                engine.residency.leave(one)
                done[id] += 1

        await asyncio.gather(*map(lines, done), *map(lines, done))
        loads = sum(word.startswith("+") for word in engine.told)
        assert loads < sum(done.values()), f"{loads} loads for {done}"

    played(1, test)


def test_a_gate_and_a_few_places_never_wait_for_each_other() -> None:
    async def test(engine: Played) -> None:
        gate, asked = Gate(2), 0

        async def line(id: str) -> None:
            nonlocal asked
            ticket = Ticket(Rank.FLEX, id)
            with engine.residency.wanted(id):
                while True:
                    await engine.residency.ready(id)
                    await gate.admit(ticket)
                    if one := engine.residency.enter(id):
                        break
                    gate.release(ticket)
            await asyncio.sleep(0.001)
            engine.residency.leave(one)
            gate.release(ticket)
            asked += 1

        await asyncio.gather(*(line("abcd"[n % 4]) for n in range(200)))
        assert asked == 200

    played(2, test)


def test_an_engine_that_was_started_again_has_none() -> None:
    async def test(engine: Played) -> None:
        before = await engine.entered("a")
        engine.generation += 1
        engine.inside.clear()
        assert engine.residency.enter("a") is None
        after = await engine.entered("a")
        engine.residency.leave(before)
        assert (after.inside, engine.told) == (1, ["+a", "+a"])

    played(1, test)


def test_one_that_can_not_be_loaded_is_told_to_all_who_want_it_and_keeps_nobody_else_out() -> None:
    async def test(engine: Played) -> None:
        engine.broken.add("a")
        told = await asyncio.gather(*(engine.entered(id) for id in "aab"), return_exceptions=True)
        assert [str(one) for one in told[:2]] == ["a is broken"] * 2
        assert isinstance(told[2], Resident)

    played(1, test)


def test_who_gives_up_waiting_is_not_loaded() -> None:
    async def test(engine: Played) -> None:
        first = await engine.entered("a")
        waiting = asyncio.create_task(engine.entered("b"))
        await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        engine.residency.leave(first)
        engine.residency.leave(await engine.entered("a"))
        await asyncio.sleep(0)
        assert engine.told == ["+a"]

    played(1, test)


def test_an_engine_without_room_for_adapters_says_so() -> None:
    async def test(engine: Played) -> None:
        with pytest.raises(AdapterFault, match="needs --enable-lora"):
            await engine.entered("a")

    played(0, test)
