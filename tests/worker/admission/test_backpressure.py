"""While an engine has enough no line enters, calls do; and what it turned away cost no line a try."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from worker.engines import echo_engine

from penstock.domain.engines.profiles import REMOTE
from penstock.domain.work.rank import Rank
from penstock.formats.input import Line
from penstock_worker.admission.backpressure import Backpressure, Pressure
from penstock_worker.admission.gate import Gate, Ticket
from penstock_worker.engine.client import EngineAnswer, EngineClient
from penstock_worker.engine.process.supervisor import Supervisor
from penstock_worker.slices.line_request import EngineLimits, LineTries, OutcomeKind, ask_line

LINE, CALL = Ticket(Rank.STANDARD, "a"), Ticket(Rank.REALTIME, "a")


@pytest.fixture(scope="module")
def engine(short_dir: Path) -> Iterator[Supervisor]:
    with echo_engine(short_dir / "pressed") as supervisor:
        yield supervisor


def run(test: Callable[[Gate, Backpressure], Awaitable[None]]) -> None:
    async def inside() -> None:
        gate = Gate(4, 6)
        await test(gate, Backpressure(gate))

    asyncio.run(asyncio.wait_for(inside(), 20))


def answer(status: int, hold: float | None, body: bytes = b"{}") -> EngineAnswer:
    return EngineAnswer(status, body, "id", 0.1, 1, hold, hold)


def test_while_it_has_enough_no_line_enters_but_calls_do_and_then_all_may_again() -> None:
    async def test(gate: Gate, pressure: Backpressure) -> None:
        assert pressure.refused_line(0.2) == pytest.approx(0.2, abs=0.01)
        waiting = asyncio.ensure_future(gate.admit(LINE))
        await gate.admit(CALL)
        assert pressure.holds
        assert not waiting.done()
        await waiting
        assert not pressure.holds

    run(test)


def test_those_that_were_turned_away_together_are_one_refusal() -> None:
    async def test(gate: Gate, pressure: Backpressure) -> None:
        for _ in range(3):
            await gate.admit(LINE)
        for _ in range(3):
            pressure.refused_line(5.0)
        assert pressure.take() == Pressure(refusals=1, lines=3)
        assert (pressure.take(), pressure.refused_lines) == (Pressure(), 3)

    run(test)


def test_without_a_word_of_how_long_it_waits_longer_each_time_and_never_in_a_circle() -> None:
    now = [0.0]

    async def test(gate: Gate, _: Backpressure) -> None:
        pressure, waits = Backpressure(gate, clock=lambda: now[0]), []
        for _ in range(8):
            waits.append(pressure.refused_line(None))
            now[0] += waits[-1]
        assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
        pressure.answered(1.0, 10)
        assert pressure.refused_line(None) == 0.5
        now[0] += 0.5
        assert pressure.refused_line(0.0) > 0

    run(test)


def test_a_call_that_is_told_how_long_spares_the_others_the_way() -> None:
    async def test(gate: Gate, pressure: Backpressure) -> None:
        pressure.refused_line(3.0)
        assert pressure.call_wait_seconds == 0.0, "lines alone: a call may still be taken"
        pressure.refused_call(None)
        assert pressure.call_wait_seconds == 0.0
        assert pressure.refused_call(2.0) == pytest.approx(2.0, abs=0.01)
        assert pressure.call_wait_seconds > 1.9

    run(test)


@pytest.mark.parametrize(
    ("said", "waits", "holds"),
    [
        (answer(429, 2.0), True, True),
        (answer(503, 2.0), True, True),
        (answer(503, None), False, False),
        (answer(200, 1.0), False, True),
        (answer(200, None), False, False),
        (answer(429, 2.0, b'{"error": {"code": "insufficient_quota"}}'), False, False),
    ],
)
def test_which_answers_make_a_line_wait_and_which_hold_the_others(said: EngineAnswer, waits: bool, holds: bool) -> None:
    async def test(gate: Gate, pressure: Backpressure) -> None:
        assert (EngineLimits(REMOTE, pressure).heard(said) is not None) is waits
        assert pressure.holds is holds

    run(test)


def test_a_line_that_was_turned_away_more_often_than_it_has_tries_is_answered_all_the_same(engine: Supervisor) -> None:
    async def test(gate: Gate, pressure: Backpressure) -> None:
        await gate.admit(LINE)
        async with EngineClient(socket=engine.launch.socket) as client:
            tries = LineTries(3, 10.0)
            limits = EngineLimits(REMOTE, pressure)
            body = b'{"model":"echo","messages":[{"role":"user","content":"[[status 429 times 5 after 0.01]]"}]}'
            asked = Line(7, "seven", "/v1/chat/completions", body)
            outcome = await ask_line(client, gate, LINE, asked, tries, limits=limits)
        assert (outcome.kind, outcome.tries, pressure.refused_lines) == (OutcomeKind.ANSWERED, 1, 5)
        assert tries.spent_seconds < 1.0

    run(test)
