"""One line's request to the engine, from its slot at the gate to an outcome, within one budget of tries and time.

    answered    the engine said 2xx
    refused     the engine said 4xx, or 429 or 5xx when it was asked for the last time
    timed_out   the line's time in the engine was over: `request_timeout`
    too_large   the answer has more bytes than are kept of one: `answer_too_large`
    unreached   the connection broke when it was asked for the last time, and the engine lives: `engine_error`

An outcome is data. EngineGone alone is an exception: nobody knows then whether the line ran, and what to do about it
depends on the engine and the lease, which are the caller's. It is no try of the line's. Nor is one that an engine with
limits of its own turned away since it has enough (admission/backpressure.py): the line comes again once it may.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Final

import structlog

from penstock.domain.engines.profile import EngineProfile
from penstock.formats.input import Line
from penstock_worker.admission.backpressure import Backpressure
from penstock_worker.admission.gate import Gate, Ticket
from penstock_worker.engine.client import AnswerTooLarge, EngineAnswer, EngineClient, EngineGone, EngineTimeout

log = structlog.get_logger()

_FIRST_BACKOFF_SECONDS: Final = 0.5
_MOST_BACKOFF_SECONDS: Final = 30.0


class OutcomeKind(StrEnum):
    """How a line ended in the engine."""

    ANSWERED = "answered"
    REFUSED = "refused"
    TIMED_OUT = "timed_out"
    UNREACHED = "unreached"
    TOO_LARGE = "too_large"


@dataclass(frozen=True)
class Outcome:
    """How a line ended, and what the engine said last (status 0 and no body if it said nothing)."""

    kind: OutcomeKind
    status: int
    body: bytes
    request_id: str | None
    tries: int
    seconds: float = 0.0
    """What the last try took."""


class LineTries:
    """What one line may cost, however it fails: how often it is asked in all, and its time in the engine in all."""

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        if most < 1:
            raise ValueError("a line is asked at least once")
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self.made = 0
        self.spent_seconds = 0.0
        self._last_seconds = 0.0

    @contextmanager
    def one(self) -> Iterator[float]:
        """Count one try, which may take as many seconds as there are left, and the time that it takes."""
        began = self._clock()
        self.made += 1
        try:
            yield self._seconds - self.spent_seconds
        finally:
            self._last_seconds = self._clock() - began
            self.spent_seconds += self._last_seconds

    def forgive(self) -> None:
        """The last try was none: the engine did not take the line."""
        self.made -= 1
        self.spent_seconds -= self._last_seconds

    @property
    def left(self) -> int:
        """How often the line may be asked again."""
        return self._most - self.made

    @property
    def out_of_time(self) -> bool:
        """Whether its time in the engine is over."""
        return self.spent_seconds >= self._seconds

    def outcome(self, kind: OutcomeKind, answer: EngineAnswer | None = None) -> Outcome:
        """The line's end after these tries."""
        if answer is None:
            return Outcome(kind, 0, b"", None, self.made)
        return Outcome(kind, answer.status, answer.body, answer.request_id, self.made, answer.seconds)


@dataclass(frozen=True)
class EngineLimits:
    """An engine's own limits, as its profile says that it tells of them."""

    profile: EngineProfile
    backpressure: Backpressure

    def heard(self, answer: EngineAnswer) -> float | None:
        """Note what an answer says of the limits; how long the line has to wait, None if it was taken.

        Who has spent all that he paid for (OpenAI's `insufficient_quota`) is turned away for good.
        """
        hold = answer.hold_seconds
        if not self.profile.is_busy(answer.status, hold):
            if hold and answer.status < 300:
                self.backpressure.hold(hold)
            return None
        return None if b"insufficient_quota" in answer.body else self.backpressure.refused_line(hold)


async def ask_line(
    client: EngineClient,
    gate: Gate,
    ticket: Ticket,
    line: Line,
    tries: LineTries,
    *,
    engine_lives: Callable[[int], Awaitable[bool]] | None = None,
    limits: EngineLimits | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    chance: Callable[[], float] = random.random,
) -> Outcome:
    """Ask one line that the caller has admitted at the gate; its slot is given back once the engine is done with it.

    After 429, 5xx and a broken connection it is asked again while there are tries, without a slot while it waits.
    After a 5xx or a broken connection `engine_lives` is asked for the generation that was asked, since vLLM answers
    500 to all that is in flight when its EngineCore dies: if it is dead, that is EngineGone. Without `engine_lives` an
    engine that answers lives, and one that breaks the connection does not. `limits` are those of an engine that turns
    away what it has no room for. Raises EngineGone.
    """
    while True:
        answer = None
        try:
            with tries.one() as seconds:
                answer = await client.ask(line.url, line.body, seconds, partial(gate.release, ticket))
        except EngineTimeout:
            return tries.outcome(OutcomeKind.TIMED_OUT)
        except AnswerTooLarge:
            return tries.outcome(OutcomeKind.TOO_LARGE)
        except EngineGone as error:
            broken = error
        if answer and limits and (wait := limits.heard(answer)) is not None:
            tries.forgive()
            await sleep(wait * (1.0 + 0.1 * chance()))
            await gate.admit(ticket)
            continue
        if answer is None:
            if engine_lives is None or not await engine_lives(broken.generation):
                raise broken
            log.warning("line_asked_again", slice=ticket.slice, line=line.number, error=str(broken))
        elif answer.status >= 500 and engine_lives and not await engine_lives(answer.generation):
            raise EngineGone(f"the engine died and answered {answer.status}", generation=answer.generation)
        if answer and not is_passing(answer.status):
            return tries.outcome(_verdict(answer.status), answer)
        if not tries.left:
            return tries.outcome(OutcomeKind.REFUSED if answer else OutcomeKind.UNREACHED, answer)
        if tries.out_of_time:
            return tries.outcome(OutcomeKind.TIMED_OUT)
        await sleep(backoff_seconds(tries.made, answer, chance()))
        await gate.admit(ticket)


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
