"""The gate keeps slots for waiting calls, hands the others out in order, and never loses or doubles one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from penstock.domain.work.rank import Rank
from penstock_worker.admission.gate import Gate, Ticket, least_lines

HEAD, CALL, URGENT, LINE, FLEX = (Ticket(rank, "a") for rank in Rank)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def fill(gate: Gate, ticket: Ticket, count: int) -> None:
    for _ in range(count):
        await asyncio.wait_for(gate.admit(ticket), 1)


async def order_of(gate: Gate, tickets: dict[str, Ticket], held: Ticket) -> list[str]:
    """The order in which these are admitted, one at a time, when a held slot comes free."""
    order = list[str]()

    async def one(name: str, ticket: Ticket) -> None:
        await gate.admit(ticket)
        order.append(name)
        gate.release(ticket)

    async with asyncio.TaskGroup() as group:
        for name, ticket in tickets.items():
            group.create_task(one(name, ticket))
        await settle()
        assert order == []
        gate.release(held)
    return order


def test_a_free_slot_is_taken_without_suspension() -> None:
    gate = Gate(1)
    with pytest.raises(StopIteration):
        gate.admit(FLEX).send(None)
    assert gate.in_flight == gate.held(Rank.FLEX) == gate.lines == 1
    assert gate.calls == 0


def test_waiters_go_by_rank_then_first_come() -> None:
    async def test() -> None:
        gate = Gate(1)
        await gate.admit(FLEX)
        names = ["f1", "s1", "p1", "c1", "f2", "h1", "p2", "s2", "c2"]
        tickets = dict(zip("hcpsf", (HEAD, CALL, URGENT, LINE, FLEX), strict=True))
        order = await order_of(gate, {name: tickets[name[0]] for name in names}, FLEX)
        assert order == ["h1", "c1", "c2", "p1", "p2", "s1", "s2", "f1", "f2"]
        assert gate.in_flight == 0

    run(test)


def test_among_equals_the_tenant_with_the_fewest_in_flight_goes_first_then_the_earliest_deadline() -> None:
    async def test() -> None:
        gate = Gate(4)
        await fill(gate, LINE, 3)
        await fill(gate, Ticket(Rank.FLEX, "b"), 1)
        waiting = {
            "much, early": Ticket(Rank.STANDARD, "a", 10.0),
            "some, late": Ticket(Rank.STANDARD, "b", 30.0),
            "some, early": Ticket(Rank.STANDARD, "b", 20.0),
            "none, whenever": Ticket(Rank.STANDARD, "c"),
            "none, soon": Ticket(Rank.STANDARD, "d", 40.0),
        }
        order = await order_of(gate, waiting, LINE)
        assert order == ["none, soon", "none, whenever", "some, early", "some, late", "much, early"]

    run(test)


def test_a_tenants_lines_of_one_deadline_go_slice_by_slice() -> None:
    async def test() -> None:
        gate = Gate(2)
        await fill(gate, LINE, 2)
        waiting = {
            "second": Ticket(Rank.STANDARD, "a", 10.0, 8),
            "first": Ticket(Rank.STANDARD, "a", 10.0, 7),
            "urgent": Ticket(Rank.STANDARD, "a", 5.0, 9),
            "first, later": Ticket(Rank.STANDARD, "a", 10.0, 7),
        }
        assert await order_of(gate, waiting, LINE) == ["urgent", "first", "first, later", "second"]

    run(test)


def test_calls_in_flight_do_not_count_against_a_tenants_lines() -> None:
    async def test() -> None:
        gate = Gate(4)
        await fill(gate, CALL, 2)
        await fill(gate, Ticket(Rank.STANDARD, "b"), 1)
        await fill(gate, Ticket(Rank.STANDARD, "c"), 1)
        order = await order_of(gate, {"b": Ticket(Rank.STANDARD, "b"), "a": LINE}, CALL)
        assert order == ["a", "b"]

    run(test)


def test_batch_lines_leave_the_reserve_free_and_waiting_calls_take_any_slot() -> None:
    async def test() -> None:
        gate = Gate(4, 6)
        await fill(gate, LINE, 4)
        line = asyncio.create_task(gate.admit(URGENT))
        await fill(gate, CALL, 2)
        call = asyncio.create_task(gate.admit(CALL))
        await settle()
        assert not line.done()
        assert not call.done()
        gate.release(LINE)
        await settle()
        assert call.done()
        assert not line.done(), "four of six slots are for lines, and calls hold three"
        assert (gate.calls, gate.lines, gate.in_flight) == (3, 3, 6)
        gate.release(CALL)
        gate.release(CALL)
        await settle()
        assert not line.done()
        gate.release(CALL)
        await asyncio.wait_for(line, 1)

    run(test)


def test_one_tenants_calls_leave_some_slots_for_those_of_others() -> None:
    async def test() -> None:
        gate = Gate(16, 32)
        await fill(gate, CALL, 30)
        more = asyncio.create_task(gate.admit(CALL))
        await settle()
        assert not more.done()
        await fill(gate, Ticket(Rank.REALTIME, "b"), 1)
        await fill(gate, Ticket(Rank.REALTIME, "c"), 1)
        assert gate.in_flight == 32
        gate.release(CALL)
        await settle()
        assert not more.done(), "it holds nearly all, and the last few are for others"
        gate.release(CALL)
        gate.release(CALL)
        await settle()
        assert more.done()

    run(test)


def test_a_request_of_many_sequences_takes_as_many_slots_and_gives_them_all_back() -> None:
    async def test() -> None:
        gate = Gate(16, 32)
        many = Ticket(Rank.REALTIME, "a", sequences=11)
        await fill(gate, many, 2)
        assert (gate.calls, gate.in_flight) == (22, 22)
        third = asyncio.create_task(gate.admit(many))
        await fill(gate, Ticket(Rank.REALTIME, "b"), 4)
        assert not third.done(), "there is no room for it"
        gate.release(many)
        await settle()
        assert third.done()
        gate.release(many)
        gate.release(many)
        assert gate.calls == 4

    run(test)


def test_one_of_more_sequences_than_there_are_slots_takes_half_of_them() -> None:
    async def test() -> None:
        gate = Gate(16, 32)
        huge = Ticket(Rank.STANDARD, "a", sequences=2_000)
        await asyncio.wait_for(gate.admit(huge), 1)
        assert gate.lines == 16
        line = asyncio.create_task(gate.admit(Ticket(Rank.STANDARD, "b")))
        await settle()
        assert not line.done()
        gate.release(huge)
        await asyncio.wait_for(line, 1)
        assert gate.lines == 1

    run(test)


def test_a_line_of_many_sequences_comes_in_alone_where_the_budget_is_smaller() -> None:
    async def test() -> None:
        gate = Gate(16, 32)
        gate.budget = 2
        many = Ticket(Rank.STANDARD, "a", sequences=8)
        await asyncio.wait_for(gate.admit(many), 1)
        other = asyncio.create_task(gate.admit(LINE))
        await settle()
        assert not other.done()
        gate.release(many)
        await asyncio.wait_for(other, 1)

    run(test)


def test_steady_calls_leave_the_least_of_batch_work_in() -> None:
    async def test() -> None:
        gate = Gate(32, 36)
        assert least_lines(32) == 2
        await fill(gate, CALL, 34)
        await fill(gate, FLEX, 2)
        third = asyncio.create_task(gate.admit(FLEX))
        gate.release(CALL)
        await settle()
        assert not third.done()
        gate.budget = 1
        gate.release(FLEX)
        await settle()
        assert not third.done(), "the budget is the limit all the same"
        gate.budget = 2
        await asyncio.wait_for(third, 1)

    run(test)


def test_a_newcomer_does_not_overtake_the_one_that_a_slot_was_handed_to() -> None:
    async def test() -> None:
        gate = Gate(1)
        await gate.admit(FLEX)
        waiter = asyncio.create_task(gate.admit(FLEX))
        await settle()
        gate.release(FLEX)
        newcomer = asyncio.create_task(gate.admit(CALL))
        await settle()
        assert waiter.done()
        assert not newcomer.done()
        gate.release(FLEX)
        await newcomer

    run(test)


def test_a_slot_that_comes_with_the_cancellation_goes_to_the_next() -> None:
    async def test() -> None:
        gate = Gate(1)
        await gate.admit(LINE)
        first = asyncio.create_task(gate.admit(LINE))
        second = asyncio.create_task(gate.admit(LINE))
        await settle()
        gate.release(LINE)
        first.cancel()
        await settle()
        assert first.cancelled()
        assert second.done()
        assert gate.in_flight == 1

    run(test)


def test_a_larger_budget_lets_waiters_in_and_a_smaller_one_waits_for_lines_to_come_back() -> None:
    async def test() -> None:
        gate = Gate(3)
        gate.budget = 1
        tasks = [asyncio.create_task(gate.admit(LINE)) for _ in range(4)]
        await settle()
        assert gate.in_flight == 1
        gate.budget = 3
        await settle()
        assert gate.in_flight == 3
        gate.budget = 1
        gate.release(LINE)
        gate.release(LINE)
        await settle()
        assert (gate.in_flight, gate.waiting(Rank.STANDARD)) == (1, 1)
        gate.release(LINE)
        await settle()
        assert all(task.done() for task in tasks)

    run(test)


def test_no_budget_is_larger_than_the_first() -> None:
    async def test() -> None:
        gate = Gate(2, 8)
        gate.budget = 8
        await fill(gate, LINE, 2)
        third = asyncio.create_task(gate.admit(LINE))
        await settle()
        assert not third.done()
        third.cancel()

    run(test)


@pytest.mark.parametrize("other", [FLEX, Ticket(Rank.STANDARD, "b"), CALL])
def test_a_release_without_a_slot_is_our_own_bug(other: Ticket) -> None:
    gate = Gate(1)
    with pytest.raises(StopIteration):
        gate.admit(LINE).send(None)
    with pytest.raises(RuntimeError):
        gate.release(other)
    gate.release(LINE)
    with pytest.raises(RuntimeError):
        gate.release(LINE)


def test_two_thousand_who_come_and_leave_cost_each_other_little_and_leave_nothing_behind() -> None:
    async def test() -> None:
        gate = Gate(1)
        await gate.admit(LINE)
        for _ in range(20):
            tickets = [Ticket(Rank.REALTIME, f"t{n % 700}", float(n % 90)) for n in range(2_000)]
            tasks = [asyncio.create_task(gate.admit(ticket)) for ticket in tickets]
            await asyncio.sleep(0)
            assert gate.waiting(Rank.REALTIME) == 2_000
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert gate.waiting(Rank.REALTIME) == 0
        remembered = gate._waiters[Rank.REALTIME]
        assert not remembered._queues
        assert len(remembered._order) < 5_000
        assert gate.in_flight == 1

    run(test)


def test_busy_time_is_counted_while_any_line_is_in_flight() -> None:
    async def test() -> None:
        gate = Gate(4)
        assert gate.lines_busy_seconds == 0.0
        await fill(gate, LINE, 2)
        gate.release(LINE)
        first = gate.lines_busy_seconds
        assert gate.lines_busy_seconds > first > 0.0
        gate.release(LINE)
        ended = gate.lines_busy_seconds
        assert gate.lines_busy_seconds == ended >= first

    run(test)


def test_urgent_lines_pass_those_of_less_urgent_lanes_who_wait_until_all_are_within_the_budget_again() -> None:
    async def test() -> None:
        gate = Gate(8, 14, overtakers=4)
        await fill(gate, FLEX, 8)
        await fill(gate, LINE, 4)
        waiting = {name: asyncio.create_task(gate.admit(t)) for name, t in {"line": LINE, "flex": FLEX}.items()}
        await settle()
        assert not any(task.done() for task in waiting.values()), "the overtakers' slots are taken"
        await fill(gate, CALL, 2)
        gate.release(FLEX)
        await settle()
        assert not waiting["line"].done(), "the calls have the slot now"
        gate.release(CALL)
        gate.release(CALL)
        await settle()
        assert waiting["line"].done()
        for _ in range(4):
            gate.release(LINE)
        await settle()
        assert not waiting["flex"].done(), "seven of flex and one line fill the budget"
        gate.release(LINE)
        await asyncio.wait_for(waiting["flex"], 1)

    run(test)


def test_a_tenant_passes_those_who_hold_more_than_an_equal_share_until_he_has_his() -> None:
    async def test() -> None:
        gate = Gate(8, 14, overtakers=6)
        await fill(gate, LINE, 8)
        other = Ticket(Rank.STANDARD, "b")
        assert [await asyncio.wait_for(gate.admit(other), 1) for _ in range(4)] == [True] * 4
        fifth = asyncio.create_task(gate.admit(other))
        mine = asyncio.create_task(gate.admit(LINE))
        for _ in range(4):
            await settle()
            assert not fifth.done()
            assert not mine.done()
            gate.release(LINE)
        await settle()
        assert not fifth.done(), "four each fill the budget"
        gate.release(LINE)
        await settle()
        assert mine.done(), "who holds less goes first"
        assert not mine.result(), "and within the budget nobody goes ahead"
        assert not fifth.done()
        gate.release(LINE)
        await asyncio.wait_for(fifth, 1)

    run(test)


def test_nobody_passes_a_more_urgent_lane_for_his_share() -> None:
    async def test() -> None:
        gate = Gate(8, 14, overtakers=6)
        await fill(gate, LINE, 6)
        await fill(gate, FLEX, 2)
        assert await asyncio.wait_for(gate.admit(Ticket(Rank.FLEX, "b")), 1), "two slots are left for flex: one each"
        second = asyncio.create_task(gate.admit(Ticket(Rank.FLEX, "b")))
        await settle()
        assert not second.done()
        second.cancel()

    run(test)


def test_nobody_overtakes_in_his_own_lane_alone_or_while_the_budget_keeps_a_promise() -> None:
    async def test() -> None:
        gate = Gate(8, 14, overtakers=4)
        await fill(gate, LINE, 8)
        alone = asyncio.create_task(gate.admit(LINE))
        await settle()
        assert not alone.done()
        gate.budget = 6
        urgent = asyncio.create_task(gate.admit(URGENT))
        await settle()
        assert not urgent.done()
        gate.budget = 8
        await asyncio.wait_for(urgent, 1)
        assert not alone.done()
        alone.cancel()

    run(test)
