"""The speed: tokens a second of an engine that is full, from when its lines went in and came back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from penstock.domain.work.rank import Rank
from penstock.formats.output import usage_of
from penstock_worker.admission.gate import Gate, Ticket
from penstock_worker.engine.client import EngineClient

_TICKET: Final = Ticket(Rank.STANDARD, "tuning")


class WorkFailed(Exception):
    """The engine does not do the work."""


@dataclass(frozen=True)
class TimedAnswer:
    """One line that was answered: when it went into the engine, when it came back, and its tokens."""

    began: float
    ended: float
    tokens: int


async def ask(client: EngineClient, gate: Gate, endpoint: str, body: bytes, timeout_seconds: float) -> TimedAnswer:
    """One line through the gate. Raises WorkFailed for an answer that is none, EngineGone and EngineTimeout."""
    await gate.admit(_TICKET)
    began = time.monotonic()
    answer = await client.ask(endpoint, body, timeout_seconds, partial(gate.release, _TICKET))
    if answer.status != 200:
        told = answer.body[:300].decode(errors="replace")
        raise WorkFailed(f"it answered {answer.status} to a line of the workload: {told}")
    return TimedAnswer(began, time.monotonic(), usage_of(answer.body).total_tokens)


async def ask_all(
    client: EngineClient, gate: Gate, endpoint: str, bodies: Sequence[bytes], timeout_seconds: float
) -> list[TimedAnswer]:
    """All of these, as many at once as the gate lets in; the first that fails ends the others."""
    tasks = [asyncio.ensure_future(ask(client, gate, endpoint, body, timeout_seconds)) for body in bodies]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def tokens_per_second(answered: Sequence[TimedAnswer]) -> float:
    """While the engine was full: until the last line went in, if half of them had come back by then.

    Else until the last came back. A line counts by the part of its time in the engine that is in that time: what is
    half done is half done, whatever comes of it.
    """
    began = min(one.began for one in answered)
    full_until = max(one.began for one in answered)
    back = sum(one.ended <= full_until for one in answered)
    until = full_until if 2 * back >= len(answered) else max(one.ended for one in answered)
    done = sum(one.tokens * _part(one, until) for one in answered)
    return done / max(until - began, 1e-6)


def _part(one: TimedAnswer, until: float) -> float:
    whole = one.ended - one.began
    return min(1.0, (until - one.began) / whole) if whole > 0 else 1.0
