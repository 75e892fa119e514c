"""The gate while somebody has the engine to himself: empty first, shut meanwhile, open again whatever happens."""

from __future__ import annotations

import asyncio

from penstock.domain.work.rank import Rank
from penstock_worker.admission.gate import Gate, Ticket

CALL, STANDARD, FLEX = (Ticket(rank, "a") for rank in (Rank.REALTIME, Rank.STANDARD, Rank.FLEX))


async def until_quiet() -> None:
    """Let every task run until it waits for something else."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_nobody_is_admitted_and_what_was_in_flight_comes_back_first() -> None:
    async def run() -> None:
        gate, seen = Gate(4), list[str]()
        await gate.admit(STANDARD)

        async def alone() -> None:
            async with gate.alone():
                assert gate.in_flight == 0
                seen.append("alone")
                await until_quiet()
                seen.append("done")

        async def newcomer() -> None:
            await gate.admit(CALL)
            seen.append("newcomer")

        trial = asyncio.create_task(alone())
        assert not gate.trying
        await until_quiet()
        assert gate.trying
        late = asyncio.create_task(newcomer())
        await until_quiet()
        assert seen == []
        gate.release(STANDARD)
        await asyncio.gather(trial, late)
        assert seen == ["alone", "done", "newcomer"]
        assert gate.in_flight == 1
        assert not gate.trying

    asyncio.run(run())


def test_two_take_turns_and_one_that_gives_up_waiting_opens_the_gate_again() -> None:
    async def run() -> None:
        gate, inside = Gate(2), list[str]()
        await gate.admit(FLEX)

        async def alone(name: str, end: asyncio.Event) -> None:
            async with gate.alone():
                inside.append(name)
                await end.wait()
            inside.remove(name)

        ends = {name: asyncio.Event() for name in ("first", "second")}
        first, second = (asyncio.create_task(alone(name, end)) for name, end in ends.items())
        await until_quiet()
        first.cancel()  # it waited for the line in flight
        await until_quiet()
        gate.release(FLEX)
        await until_quiet()
        assert inside == ["second"]
        ends["second"].set()
        await second
        await asyncio.wait_for(gate.admit(FLEX), 1)

    asyncio.run(run())


def test_a_larger_budget_does_not_open_a_shut_gate() -> None:
    async def run() -> None:
        gate = Gate(1)
        async with gate.alone():
            waiting = asyncio.create_task(gate.admit(STANDARD))
            gate.budget = 8
            await until_quiet()
            assert not waiting.done()
        await asyncio.wait_for(waiting, 1)

    asyncio.run(run())
