"""Asking: one line's life in the engine, from its slot at the gate to an outcome.

    answered    the engine said 2xx
    refused     the engine said 4xx, or 429 or 5xx each time it was asked
    timed_out   the line's time in the engine was over: `request_timeout`

An outcome is data. EngineGone alone is an exception: nobody knows then whether the line ran, and what to do about it
depends on the engine and the lease, which are the caller's.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from penstock_worker.admission.gate import Gate, Ticket
from penstock_worker.engine.client import EngineAnswer, EngineClient, EngineGone, EngineTimeout

_FIRST_BACKOFF_SECONDS: Final = 0.5
_MOST_BACKOFF_SECONDS: Final = 30.0


class Line(Protocol):
    """What asking needs to know of a line."""

    @property
    def url(self) -> str: ...
    @property
    def body(self) -> bytes: ...


class OutcomeKind(StrEnum):
    """How a line ended in the engine."""

    ANSWERED = "answered"
    REFUSED = "refused"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True)
class Outcome:
    """How a line ended, and what the engine said last (status 0 and no body if it said nothing)."""

    kind: OutcomeKind
    status: int
    body: bytes
    request_id: str | None
    tries: int
    engine_seconds: float
    """Time in the engine over all tries; waits between them not counted."""


async def ask_line(
    client: EngineClient,
    gate: Gate,
    ticket: Ticket,
    line: Line,
    *,
    timeout_seconds: float,
    tries: int,
    engine_lives: Callable[[int], Awaitable[bool]] | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    chance: Callable[[], float] = random.random,
) -> Outcome:
    """Ask one line that the caller has admitted at the gate; its slot is given back on every way out.

    429 and 5xx are asked again, `tries` times in all, without a slot while it waits. After a 5xx `engine_lives` (if
    given) is asked for the generation that answered, since vLLM answers 500 to all that is in flight when its
    EngineCore dies: then it is EngineGone, and no try of the line's. Raises EngineGone.
    """
    spent = 0.0
    for attempt in range(1, tries + 1):
        try:
            answer = await client.ask(line.url, line.body, timeout_seconds - spent)
        except EngineTimeout:
            return Outcome(OutcomeKind.TIMED_OUT, 0, b"", None, attempt, timeout_seconds)
        finally:
            gate.release(ticket)
        spent += answer.seconds
        kind = _verdict(answer.status)
        if answer.status >= 500 and engine_lives and not await engine_lives(answer.generation):
            raise EngineGone(f"the engine died and answered {answer.status}", generation=answer.generation)
        again = is_passing(answer.status) and attempt < tries
        if not again:
            return Outcome(kind, answer.status, answer.body, answer.request_id, attempt, spent)
        if spent >= timeout_seconds:
            return Outcome(OutcomeKind.TIMED_OUT, 0, b"", answer.request_id, attempt, spent)
        await sleep(backoff_seconds(attempt, answer, chance()))
        await gate.admit(ticket)
    raise ValueError("a line is asked at least once")


def _verdict(status: int) -> OutcomeKind:
    return OutcomeKind.ANSWERED if 200 <= status < 300 else OutcomeKind.REFUSED


def is_passing(status: int) -> bool:
    """Whether the same request may get another answer a while later."""
    return status == 429 or status >= 500


def backoff_seconds(attempt: int, answer: EngineAnswer | None = None, chance: float | None = None) -> float:
    """The wait after a passing failure: 0.5, 1, 2 … s at random between half and whole, or the engine's retry-after.

    Both end at 30 s. A retry-after is a least wait, so chance only adds to it (up to a tenth): all lines that were
    turned away together should not come back together.
    """
    chance = random.random() if chance is None else chance
    if answer is not None and answer.retry_after_seconds is not None:
        return min(_MOST_BACKOFF_SECONDS, answer.retry_after_seconds) * (1.0 + 0.1 * chance)
    return min(_MOST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0 ** (attempt - 1)) * (0.5 + 0.5 * chance)
