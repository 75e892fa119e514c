"""The gate hands slots out in lane order, then first come, and never loses or doubles one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.lane import LANES, Lane
from penstock_worker.gate import Gate


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_free_slot_is_taken_without_suspension() -> None:
    gate = Gate(1)
    with pytest.raises(StopIteration):
        gate.admit(Lane.FLEX).send(None)
    assert gate.in_flight == gate.held(Lane.FLEX) == 1


def test_waiters_go_in_lane_order_then_first_come() -> None:
    async def test() -> None:
        gate, order = Gate(1), []

        async def line(name: str, lane: Lane) -> None:
            await gate.admit(lane)
            order.append(name)
            gate.release(lane)

        await gate.admit(Lane.FLEX)
        wanted = [("f1", Lane.FLEX), ("s1", Lane.STANDARD), ("p1", Lane.PRIORITY), ("f2", Lane.FLEX)]
        wanted += [("p2", Lane.PRIORITY), ("s2", Lane.STANDARD)]
        async with asyncio.TaskGroup() as group:
            for name, lane in wanted:
                group.create_task(line(name, lane))
            await settle()
            assert [gate.waiting(lane) for lane in LANES] == [2, 2, 2]
            gate.release(Lane.FLEX)
        assert order == ["p1", "p2", "s1", "s2", "f1", "f2"]
        assert gate.in_flight == 0

    run(test)


def test_a_newcomer_does_not_overtake_the_one_that_a_slot_was_handed_to() -> None:
    async def test() -> None:
        gate = Gate(1)
        await gate.admit(Lane.FLEX)
        waiter = asyncio.create_task(gate.admit(Lane.FLEX))
        await settle()
        gate.release(Lane.FLEX)
        newcomer = asyncio.create_task(gate.admit(Lane.PRIORITY))
        await settle()
        assert waiter.done()
        assert not newcomer.done()
        gate.release(Lane.FLEX)
        await newcomer

    run(test)


def test_a_slot_that_comes_with_the_cancellation_goes_to_the_next() -> None:
    async def test() -> None:
        gate = Gate(1)
        await gate.admit(Lane.STANDARD)
        first = asyncio.create_task(gate.admit(Lane.STANDARD))
        second = asyncio.create_task(gate.admit(Lane.STANDARD))
        await settle()
        gate.release(Lane.STANDARD)
        first.cancel()
        await settle()
        assert first.cancelled()
        assert second.done()
        assert gate.in_flight == 1

    run(test)


def test_a_larger_budget_lets_waiters_in_and_a_smaller_one_waits_for_lines_to_come_back() -> None:
    async def test() -> None:
        gate = Gate(1)
        tasks = [asyncio.create_task(gate.admit(Lane.STANDARD)) for _ in range(4)]
        await settle()
        assert gate.in_flight == 1
        gate.budget = 3
        await settle()
        assert gate.in_flight == 3
        gate.budget = 1
        gate.release(Lane.STANDARD)
        gate.release(Lane.STANDARD)
        await settle()
        assert (gate.in_flight, gate.waiting(Lane.STANDARD)) == (1, 1)
        gate.release(Lane.STANDARD)
        await settle()
        assert all(task.done() for task in tasks)

    run(test)


def test_a_release_without_a_slot_is_our_own_bug() -> None:
    with pytest.raises(RuntimeError):
        Gate(1).release(Lane.FLEX)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.sampled_from(LANES)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("finish"), st.integers(0, 30)),
        st.tuples(st.just("budget"), st.integers(0, 4)),
        st.tuples(st.just("yield"), st.integers(1, 3)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_no_interleaving_of_cancellations_loses_a_slot(steps: list[tuple[str, object]]) -> None:
    async def test() -> None:
        gate, lines = Gate(2), []
        holding = 0

        async def line(lane: Lane, finish: asyncio.Event) -> None:
            nonlocal holding
            await gate.admit(lane)
            holding += 1
            try:
                await finish.wait()
            finally:
                holding -= 1
                gate.release(lane)

        for what, detail in steps:
            if what == "admit":
                finish = asyncio.Event()
                lines.append((asyncio.create_task(line(detail, finish)), finish))  # type: ignore[arg-type]
            elif what == "budget":
                gate.budget = detail  # type: ignore[assignment]
            elif what == "yield":
                for _ in range(detail):  # type: ignore[call-overload]
                    await asyncio.sleep(0)
            elif lines:
                task, finish = lines[detail % len(lines)]  # type: ignore[operator]
                _ = task.cancel() if what == "cancel" else finish.set()
            waiting = sum(gate.waiting(lane) for lane in LANES)
            assert not waiting or gate.in_flight >= gate.budget, "a free slot and a waiter never exist together"
            assert gate.in_flight == sum(gate.held(lane) for lane in LANES) >= holding
        await settle()
        assert gate.in_flight == holding
        gate.budget = 2
        for _, finish in lines:
            finish.set()
        await asyncio.gather(*(task for task, _ in lines), return_exceptions=True)
        assert gate.in_flight == holding == 0
        assert all(gate.waiting(lane) == 0 for lane in LANES)

    run(test)
