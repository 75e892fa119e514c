"""A line is asked until the engine has said its last word, and its slot is free whenever it is not asking."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from worker.engines import echo_engine

from penstock.domain.work.rank import Rank
from penstock.formats.input import Line
from penstock_worker.admission.gate import Gate, Ticket
from penstock_worker.engine.client import EngineAnswer, EngineClient, EngineGone
from penstock_worker.engine.process.supervisor import Supervisor
from penstock_worker.slices.line_request import LineTries, Outcome, OutcomeKind, ask_line, backoff_seconds

TICKET = Ticket(Rank.STANDARD, "a")


@pytest.fixture(scope="module")
def engine(short_dir: Path) -> Iterator[Supervisor]:
    with echo_engine(short_dir / "ask") as supervisor:
        yield supervisor


def line(prompt: str, url: str = "/v1/chat/completions") -> Line:
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": prompt}]}).encode()
    return Line(7, "seven", url, body)


@dataclass
class Asked:
    """An outcome, and how long the line was to wait between its tries."""

    outcome: Outcome
    waits: list[float]
    gate: Gate


@asynccontextmanager
async def at_the_gate(engine: Supervisor, **more: Any) -> AsyncIterator[tuple[EngineClient, Gate]]:
    gate = Gate(1)
    await gate.admit(TICKET)
    async with EngineClient(socket=engine.launch.socket, **more) as client:
        yield client, gate
    assert gate.in_flight == 0, "the slot is given back on every way out"


def ask(
    engine: Supervisor,
    asked: Line,
    timeout: float = 10.0,
    alive: Callable[[int], Awaitable[bool]] | None = None,
    **more: Any,
) -> Asked:
    async def run() -> Asked:
        waits: list[float] = []

        async with at_the_gate(engine, **more) as (client, gate):

            async def sleep(seconds: float) -> None:
                assert gate.in_flight == 0, "a line that waits holds no slot"
                waits.append(seconds)

            outcome = await ask_line(
                client,
                gate,
                TICKET,
                asked,
                LineTries(3, timeout),
                engine_lives=alive,
                sleep=sleep,
                chance=lambda: 1.0,
            )
        return Asked(outcome, waits, gate)

    return asyncio.run(run())


def test_an_answer_belongs_to_its_line(engine: Supervisor) -> None:
    outcome = ask(engine, line("what flows here?")).outcome
    said = json.loads(outcome.body)
    assert (outcome.kind, outcome.status, outcome.tries) == (OutcomeKind.ANSWERED, 200, 1)
    assert said["choices"][0]["message"]["content"] == "what flows here?"
    assert said["id"] == f"chatcmpl-{outcome.request_id}"


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_4xx_is_refused_at_once(engine: Supervisor, status: int) -> None:
    asked = ask(engine, line(f"[[status {status}]]"))
    assert (asked.outcome.kind, asked.outcome.status, asked.outcome.tries) == (OutcomeKind.REFUSED, status, 1)
    assert asked.waits == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_asked_again(engine: Supervisor, status: int) -> None:
    asked = ask(engine, line(f"[[status {status} times 2]]"))
    assert (asked.outcome.kind, asked.outcome.tries) == (OutcomeKind.ANSWERED, 3)
    assert asked.waits == [0.5, 1.0]


def test_what_does_not_pass_is_refused_after_three_tries(engine: Supervisor) -> None:
    asked = ask(engine, line("[[status 503]]"), alive=engine.lives)
    assert (asked.outcome.kind, asked.outcome.status, asked.outcome.tries) == (OutcomeKind.REFUSED, 503, 3)
    assert len(asked.waits) == 2
    assert b"The script says 503" in asked.outcome.body


def test_the_engines_retry_after_is_obeyed_up_to_a_limit(engine: Supervisor) -> None:
    assert ask(engine, line("[[status 429 times 1 after 3]]")).waits == [pytest.approx(3.3)]
    endless = EngineAnswer(429, b"", "id", 0.1, 1, retry_after_seconds=86_400.0)
    assert backoff_seconds(1, endless, 0.0) == 30.0


def test_a_line_whose_time_is_over_is_timed_out_and_the_engine_is_told(engine: Supervisor) -> None:
    outcome = ask(engine, line("[[hang]]"), timeout=0.2).outcome
    assert (outcome.kind, outcome.status, outcome.body) == (OutcomeKind.TIMED_OUT, 0, b"")

    async def running() -> str:
        async with EngineClient(socket=engine.launch.socket) as client:
            return await client.metrics()

    assert 'vllm:num_requests_running{engine="0",model_name="echo"} 0' in asyncio.run(running())


def test_an_answer_that_is_larger_than_any_is_kept_ends_its_line_at_once(engine: Supervisor) -> None:
    asked = ask(engine, line("words " * 2_000), max_answer_bytes=4_096)
    assert (asked.outcome.kind, asked.outcome.body, asked.waits) == (OutcomeKind.TOO_LARGE, b"", [])
    assert ask(engine, line("words"), max_answer_bytes=4_096).outcome.kind is OutcomeKind.ANSWERED


def test_a_500_of_a_dead_engine_is_no_try_of_the_lines(engine: Supervisor) -> None:
    async def dead(generation: int) -> bool:
        return False

    with pytest.raises(EngineGone, match="answered 500"):
        ask(engine, line("[[status 500]]"), alive=dead)


def test_no_engine_is_an_exception_and_the_slot_is_free(short_dir: Path) -> None:
    async def run() -> None:
        gate = Gate(1)
        await gate.admit(TICKET)
        async with EngineClient(socket=short_dir / "nobody.sock") as client:
            with pytest.raises(EngineGone):
                await ask_line(client, gate, TICKET, line("x"), LineTries(3, 5))
        assert gate.in_flight == 0

    asyncio.run(run())


def test_a_cancelled_line_gives_its_slot_back(engine: Supervisor) -> None:
    async def run() -> None:
        async with at_the_gate(engine) as (client, gate):
            feed = asyncio.create_task(ask_line(client, gate, TICKET, line("[[hang]]"), LineTries(3, 60)))
            await asyncio.sleep(0)
            feed.cancel()
            with pytest.raises(asyncio.CancelledError):
                await feed

    asyncio.run(run())
