"""Whatever order things come in, the gate keeps its promises after every step."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.limits.equal_share import may_take
from penstock.domain.work.rank import Rank
from penstock_worker.admission.gate import Gate, Ticket, least_lines

RANKS = st.sampled_from(Rank)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), RANKS, st.sampled_from("abc"), st.sampled_from([1.0, 2.0, 3.0])),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("finish"), st.integers(0, 30)),
        st.tuples(st.just("budget"), st.integers(0, 6)),
        st.tuples(st.just("alone"), st.booleans()),
        st.tuples(st.just("yield"), st.integers(1, 3)),
    ),
    max_size=80,
)
SIZES = st.tuples(st.integers(1, 5), st.integers(0, 3))
OVERTAKERS = st.integers(0, 3)


@dataclass
class Crowd:
    """Everybody who came to one gate, who waits, who is inside, and what each waiter saw when he was admitted."""

    gate: Gate
    overtakers: int
    tasks: list[tuple[asyncio.Task[None], asyncio.Event]] = field(default_factory=list)
    waiting: dict[int, Ticket] = field(default_factory=dict)
    inside: list[Ticket] = field(default_factory=list)

    def admit(self, ticket: Ticket) -> None:
        finish, number = asyncio.Event(), len(self.tasks)
        self.tasks.append((asyncio.create_task(self._one(number, ticket, finish)), finish))

    async def _one(self, number: int, ticket: Ticket, finish: asyncio.Event) -> None:
        self.waiting[number] = ticket
        try:
            await self.gate.admit(ticket)
        finally:
            del self.waiting[number]
        self.inside.append(ticket)
        try:
            await finish.wait()
        finally:
            self.inside.remove(ticket)
            self.gate.release(ticket)

    def check(self) -> None:
        """What holds whenever nobody is in the middle of a step."""
        gate = self.gate
        calls, lines = gate.calls, gate.lines
        assert gate.in_flight == calls + lines == sum(gate.held(rank) for rank in Rank) <= gate.slots
        assert calls == sum(gate.held(rank) for rank in Rank if rank.is_realtime)
        if gate.trying:
            return
        for rank in [rank for rank in Rank if rank.is_realtime and gate.waiting(rank)]:
            held, next_one = gate._calls.by_tenant, gate._waiters[rank].next_tenant
            assert not may_take(next_one, held, gate.in_flight, gate.slots), "no call waits that may have a free slot"
        if gate.in_flight < gate.most_lines + self.overtakers and gate.budget >= gate.most_lines:
            for rank in [rank for rank in Rank if not rank.is_realtime and gate.waiting(rank)]:
                left = gate.budget - sum(gate.held(first) for first in Rank if not first.is_realtime and first < rank)
                assert gate.held(rank) >= left, "a line waits for less urgent ones"
                holders, next_one = gate._lines.by_tenant, gate._waiters[rank].next_tenant
                share = left // len({*holders, next_one})
                assert holders.get(next_one, 0) >= share, "a line waits for those who have more than their share"
        if any(gate.waiting(rank) for rank in Rank if not rank.is_realtime):
            reserved = gate.in_flight >= gate.most_lines and lines >= least_lines(gate.most_lines)
            assert lines >= gate.budget or reserved or gate.in_flight == gate.slots, "no line waits that may enter"


async def quiet() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


@settings(max_examples=400, deadline=None)
@given(SIZES, OVERTAKERS, STEPS)
def test_no_slot_is_lost_and_none_is_free_while_somebody_waits_who_may_have_it(
    size: tuple[int, int], overtakers: int, steps: list[tuple]
) -> None:
    async def test() -> None:
        gate = Gate(size[0], sum(size) + overtakers, overtakers)
        crowd = Crowd(gate, overtakers)
        async with AsyncExitStack() as trial:
            for what, *details in steps:
                before = gate.lines
                if what == "admit":
                    crowd.admit(Ticket(*details))
                elif what == "budget":
                    gate.budget = details[0]
                elif what == "alone":
                    await trial.aclose()
                    if details[0] and not gate.in_flight and not crowd.tasks:
                        await trial.enter_async_context(gate.alone())
                elif what == "yield":
                    for _ in range(details[0]):
                        await asyncio.sleep(0)
                elif crowd.tasks:
                    task, finish = crowd.tasks[details[0] % len(crowd.tasks)]
                    _ = task.cancel() if what == "cancel" else finish.set()
                crowd.check()
                if gate.lines > before:
                    whole = gate.budget >= gate.most_lines
                    assert gate.lines <= gate.budget + (overtakers if whole else 0), "too many lines enter"
        await quiet()
        crowd.check()
        assert gate.in_flight == len(crowd.inside)
        gate.budget = size[0]
        for _, finish in crowd.tasks:
            finish.set()
        await asyncio.gather(*(task for task, _ in crowd.tasks), return_exceptions=True)
        assert gate.in_flight == 0
        assert not any(gate.waiting(rank) for rank in Rank)
        assert not gate._calls.by_tenant
        assert not gate._lines.by_tenant

    asyncio.run(test())


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(RANKS, st.sampled_from("abcd"), st.sampled_from([1.0, 2.0, 3.0])), min_size=1, max_size=25),
    st.lists(st.sampled_from("abcd"), max_size=6),
    st.sets(st.integers(0, 24)),
)
def test_the_next_is_always_the_one_whom_a_plain_search_would_choose(
    waiting: list[tuple[Rank, str, float]], held: list[str], leavers: set[int]
) -> None:
    async def test() -> None:
        gate = Gate(len(held) + 1)
        lines = {tenant: held.count(tenant) for tenant in "abcd"}
        for tenant in held:
            await gate.admit(Ticket(Rank.STANDARD, tenant))
        await gate.admit(Ticket(Rank.FLEX, "nobody"))
        admitted: list[int] = []

        async def one(number: int, ticket: Ticket) -> None:
            await gate.admit(ticket)
            admitted.append(number)
            gate.release(ticket)

        tasks = [asyncio.create_task(one(number, Ticket(*ticket))) for number, ticket in enumerate(waiting)]
        await quiet()
        for number in leavers:
            if number < len(tasks):
                tasks[number].cancel()
        await quiet()
        gate.release(Ticket(Rank.FLEX, "nobody"))
        await asyncio.gather(*tasks, return_exceptions=True)

        def place(number: int) -> tuple:
            rank, tenant, deadline = waiting[number]
            return rank, 0 if rank.is_realtime else lines[tenant], deadline, number

        assert admitted == sorted(set(range(len(waiting))) - leavers, key=place)

    asyncio.run(test())
