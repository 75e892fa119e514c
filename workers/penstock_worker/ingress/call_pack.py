"""A call pack: waiting calls that are asked as one request with many inputs, and each come to an end of their own.

What the engine refuses is asked by halves, down to the call that is refused; of a pack that failed otherwise, or had no
answer in half of its calls' time, each call is asked alone, as if there were no packs. Of an engine that died all hear.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.formats import list_request
from penstock.formats.list_request import OneInput
from penstock_worker.engine.client import AnswerTooLarge, EngineGone, EngineTimeout
from penstock_worker.engine_context import EngineContext

_REFUSED: Final = (400, 413, 422)
"""What an engine says of a request for what is in it."""


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """All that is told one call."""

    body: bytes
    generation: int
    """Which start of the engine gave it."""


@dataclass(eq=False, slots=True)
class PackedCall:
    """One call that waits for others, or is asked with them."""

    body: bytes
    input: OneInput
    tokens: float
    """About how many its input is."""
    seconds: float
    """How long the engine may take."""
    end: asyncio.Future[WholeAnswer | None]
    """Its answer; None: it is to be asked alone."""

    @property
    def has_answer(self) -> bool:
        """Whether it was answered with the others."""
        return self.end.done() and not self.end.cancelled() and not self.end.exception() and bool(self.end.result())

    def ends(self, how: WholeAnswer | Exception | None) -> None:
        """It came to this end; nothing, if it has left or ended before."""
        if self.end.done():
            return
        if isinstance(how, Exception):
            self.end.set_exception(how)
        else:
            self.end.set_result(how)


class CallPack:
    """Calls that ask the same of one endpoint, but for their inputs."""

    def __init__(self, engine: EngineContext, endpoint: str, calls: Sequence[PackedCall]) -> None:
        self.calls = calls
        self._engine = engine
        self._endpoint = endpoint

    @property
    def is_over(self) -> bool:
        """Whether each has its end, or has left."""
        return all(call.end.done() for call in self.calls)

    async def ask(self) -> None:
        """Bring each to its end; those that have none after it are to be asked alone."""
        calls = [call for call in self.calls if not call.end.done()]
        counter = self._engine.token_counter
        if len(calls) < 2 or counter is None:
            return
        tokens = await asyncio.to_thread(counter.of, [call.input.texts for call in calls])
        if tokens is None:
            return
        asked = list_request.joined([call.body for call in calls])
        try:
            answer = await self._engine.client.ask(self._endpoint, asked, min(call.seconds for call in calls) / 2)
        except EngineGone as gone:
            if not await self._engine.supervisor.lives(gone.generation):
                for call in calls:
                    call.ends(gone)
            return
        except (EngineTimeout, AnswerTooLarge):
            return
        if answer.status in _REFUSED:
            await self._ask_halves(calls)
        if answer.status != 200:
            return
        in_base64 = calls[0].input.in_base64
        bodies = await asyncio.to_thread(list_request.apart, answer.body, tokens, in_base64=in_base64)
        if bodies is None:
            counter.doubt()
            return
        for call, body in zip(calls, bodies, strict=True):
            call.ends(None if body is None else WholeAnswer(body, answer.generation))

    async def _ask_halves(self, calls: Sequence[PackedCall]) -> None:
        middle = (len(calls) + 1) // 2
        async with asyncio.TaskGroup() as tasks:
            for half in (calls[:middle], calls[middle:]):
                tasks.create_task(CallPack(self._engine, self._endpoint, half).ask())
