"""The refill: beside waiting calls lines enter one after the other, as fast as the engine computes their prompts."""

from __future__ import annotations

import asyncio
import heapq
import math

import pytest

from penstock.domain.work.rank import Rank
from penstock_worker.admission.gate import Gate, Ticket
from penstock_worker.admission.refill import CALM_SECONDS, Refill

TOKENS, BUDGET = 40, 128
CALL, LINE = Ticket(Rank.REALTIME, "a"), Ticket(Rank.STANDARD, "b", tokens=TOKENS)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Engine:
    """Lines of one template in step: each is in for so many seconds, and as many as may enter do."""

    def __init__(self, seconds: float, *, calls: bool) -> None:
        self.clock = Clock()
        self.refill = Refill(self.clock)
        began = self.clock.now
        self.refill.busy_seconds = lambda: self.clock.now - began
        self.seconds = seconds
        self.calls = calls
        self.inside: list[float] = []
        self.entered: list[float] = []

    def _enter(self) -> float:
        """Let in who may; how long the next one waits."""
        wait = 0.0
        while len(self.inside) < BUDGET and not wait:
            wait = self.refill.wait_seconds(len(self.inside) / BUDGET) if self.inside else 0.0
            if not wait:
                self.refill.entered(TOKENS)
                heapq.heappush(self.inside, self.clock.now + self.seconds)
                self.entered.append(self.clock.now)
        return wait

    def run(self, seconds: float) -> None:
        end, looks = self.clock.now + seconds, self.clock.now
        while self.clock.now < end:
            if self.clock.now >= looks:
                looks += 1.0
                self.refill.seen([0.05] if self.calls else [])
            if self.calls:
                self.refill.call_is_here()
            while self.inside and self.inside[0] <= self.clock.now:
                heapq.heappop(self.inside)
                self.refill.ended(TOKENS)
            wait = self._enter()
            ahead = [self.inside[0], looks] + ([self.clock.now + wait] if wait else [])
            self.clock.now = max(self.clock.now + 1e-6, min(ahead))

    def most_at_once(self, since: float, within: float = 0.1) -> int:
        """The most lines that entered within so many seconds."""
        late = [at for at in self.entered if at >= since]
        return max(sum(at <= other < at + within for other in late) for at in late)


def test_without_calls_whole_bursts_enter_at_once() -> None:
    engine = Engine(2.0, calls=False)
    engine.run(20.0)
    assert engine.most_at_once(1_005.0) == BUDGET
    assert engine.refill.tokens_per_second == math.inf


@pytest.mark.parametrize("seconds", [0.5, 2.0, 10.0])
def test_beside_calls_lines_in_step_enter_over_a_quarter_of_their_time_and_none_is_lost_to_it(seconds: float) -> None:
    engine = Engine(seconds, calls=True)
    engine.run(12 * seconds + 20)
    began = engine.clock.now
    engine.run(10 * seconds)
    steady = BUDGET / seconds
    assert engine.most_at_once(began) <= max(4, 5 * 0.1 * steady + 2)
    assert sum(at >= began for at in engine.entered) >= 0.95 * 10 * BUDGET, "as many lines as without calls, almost"


def test_once_calls_are_over_nothing_is_held_back() -> None:
    engine = Engine(2.0, calls=True)
    engine.run(20.0)
    assert engine.refill.tokens_per_second < math.inf
    engine.calls = False
    engine.run(CALM_SECONDS + 0.1)
    assert engine.refill.tokens_per_second == math.inf


def test_a_batch_that_comes_after_a_trickle_fills_the_engine_within_seconds() -> None:
    engine = Engine(1.0, calls=True)
    for _ in range(30):  # one line a second
        engine.clock.now += 1.0
        engine.refill.call_is_here()
        engine.refill.ended(TOKENS)
        engine.refill.seen([0.05])
    engine.seconds = 60.0
    engine.run(12.0)
    assert len(engine.inside) == BUDGET


def test_a_long_prompt_enters_and_those_behind_it_wait_for_it() -> None:
    clock = Clock()
    refill = Refill(clock)
    refill.seen([0.05])
    clock.now += 1.0
    for _ in range(100):
        refill.ended(100)
    refill.call_is_here()
    assert refill.tokens_per_second == pytest.approx(4_000, rel=0.01)
    assert refill.wait_seconds(1.0) == 0.0
    refill.entered(40_000)
    assert refill.wait_seconds(1.0) == pytest.approx(10.0, abs=0.2)
    clock.now += 5.0
    refill.call_is_here()
    assert 4.0 < refill.wait_seconds(1.0) < 20.0


def test_the_gate_hands_lines_their_slots_one_after_the_other_in_order_and_calls_pass() -> None:
    async def test() -> None:
        refill = Refill()
        gate = Gate(64, 72, refill=refill)
        entered: list[int] = []

        async def line(number: int) -> None:
            await gate.admit(LINE)
            entered.append(number)

        refill.seen([0.02])
        await gate.admit(LINE)
        await asyncio.sleep(0.1)  # in a tenth of a second one ends, so that four may enter in the next one
        gate.release(LINE)
        await gate.admit(LINE)  # somebody is inside
        await gate.admit(CALL)
        began = asyncio.get_running_loop().time()
        tasks = [asyncio.create_task(line(number)) for number in range(30)]
        await asyncio.sleep(0)
        assert len(entered) < 10
        await asyncio.wait_for(gate.admit(CALL), 0.05)
        await asyncio.gather(*tasks)
        assert entered == list(range(30))
        assert asyncio.get_running_loop().time() - began > 0.2

    asyncio.run(test())


def test_where_no_line_is_inside_the_next_one_enters_whatever_was_before() -> None:
    async def test() -> None:
        refill = Refill()
        gate = Gate(64, 72, refill=refill)
        long = Ticket(Rank.STANDARD, "b", tokens=1_000_000)
        for _ in range(3):
            await gate.admit(CALL)
            await asyncio.wait_for(gate.admit(long), 0.1)
            gate.release(long)

    asyncio.run(test())
