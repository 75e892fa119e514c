"""Asking a slice: its lines go through the gate into the engine as fast as the gate allows; records come back.

Gate, engine client and every coroutine here live on one asyncio loop in a thread of its own; Celery's threads hand a
slice's lines over in one block and collect what was recorded. Equal lines are asked once (reuse.py).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final

import msgspec
import structlog

from penstock.domain.line_errors import BROKEN, TIMED_OUT, UNREACHED
from penstock.domain.work.rank import OF_LANE
from penstock.domain.work.slice import Claim
from penstock.formats import output
from penstock.formats.engine_body import for_line
from penstock.formats.input import Line
from penstock.formats.output import Record
from penstock_worker.admission.gate import Gate, Ticket
from penstock_worker.engine.client import EngineGone
from penstock_worker.engine_context import EngineContext
from penstock_worker.runtime.beat import Grip
from penstock_worker.slices.line_request import LineTries, Outcome, OutcomeKind, ask_line
from penstock_worker.slices.reuse import Group, is_theirs_too, keep

log = structlog.get_logger()

_DOUBT_SECONDS: Final = 0.1
_CODES: Final = {OutcomeKind.TIMED_OUT: TIMED_OUT, OutcomeKind.UNREACHED: UNREACHED}
"""What the lines say in the output that ended without a word of the engine's."""


class LineFeed:
    """One slice's lines in the engine. `done` is set when none is in flight and none will be fed any more."""

    def __init__(
        self,
        engine: EngineContext,
        claim: Claim,
        groups: Sequence[Group],
        grip: Grip,
        gate: Gate | None = None,
    ) -> None:
        self._engine = engine
        self._gate = gate or engine.gate
        self._claim = claim
        self._ticket = Ticket(OF_LANE[claim.lane], claim.tenant, claim.deadline.timestamp(), claim.slice)
        self._groups = groups
        self._ends: deque[list[Record]] = deque()
        self._stopping = False
        self._grip = grip
        self.fed = False
        """Every line has had its turn at the gate: none waits for a slot any more, but to be asked again."""
        self.done = False
        self.engine_gone = False
        self.in_flight: list[int] = []
        """The lines that were in the engine when it died."""
        self.error: BaseException | None = None
        self._future = engine.loop.run(self._feed())
        self._future.add_done_callback(self._finished)

    def collect(self) -> list[Record]:
        """Records since the last call; a leader's and its followers' come together."""
        return [record for _ in range(len(self._ends)) for record in self._ends.popleft()]

    def stop(self) -> None:
        """Feed no more lines; those in flight go on."""
        self._stopping = True

    def cancel(self) -> None:
        """Abort what is in flight too, and wait until the loop has let go of it."""
        self._stopping = True
        self._future.cancel()

    def _finished(self, future: Future[Any]) -> None:
        if not future.cancelled() and future.exception():
            self.error = future.exception()
        self.done = True
        self._grip.news.set()

    async def _feed(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for one in self._groups:
                ahead = await self._admitted()
                if ahead is None:
                    break
                tasks.create_task(self._end(one, ahead))
            self.fed = True
            self._grip.news.set()

    async def _admitted(self) -> bool | None:
        """Take a slot while the lease is trusted, and say if it goes ahead; None if nothing more is to be fed."""
        while not self._stopping:
            if not self._grip.trusted:
                await asyncio.sleep(_DOUBT_SECONDS)
                continue
            ahead = await self._gate.admit(self._ticket)
            if self._grip.trusted and not self._stopping:
                return ahead
            self._gate.release(self._ticket)
        return None

    async def _end(self, group: Group, ahead: bool | None) -> None:
        """Bring a group to its end: a leader that ended by itself takes the others along, else the next is asked."""
        lines = group.lines
        for place, line in enumerate(lines):
            if place:
                ahead = await self._admitted()
            if ahead is None:
                return
            outcome = await self._guarded(line, ahead=ahead)
            if outcome is None:
                return
            if isinstance(outcome, Outcome) and is_theirs_too(outcome):
                followers = [self._record(follower, outcome, reused=True) for follower in lines[place + 1 :]]
                self._ends.append([self._record(line, outcome), *followers])
                keep(self._claim, group, outcome, self._engine.answer_cache)
                return
            self._ends.append([self._record(line, outcome) if isinstance(outcome, Outcome) else outcome])

    async def _guarded(self, line: Line, *, ahead: bool) -> Outcome | Record | None:
        """How a line ended that was admitted; None if the engine is gone, and nobody knows.

        A bug of ours that one line brings out ends that line, not its slice: else it would come back for ever.
        """
        try:
            asked = dataclasses.replace(line, body=self._body(line, ahead=ahead))
        except ValueError as error:
            self._gate.release(self._ticket)
            return _refused(str(error))
        except Exception as error:
            self._gate.release(self._ticket)
            return self._broken(line, error)
        try:
            return await self._ask(asked)
        except Exception as error:
            return self._broken(line, error)

    def _body(self, line: Line, *, ahead: bool) -> bytes:
        # Trials are asked through a gate of their own, and by the engine like the rest of their lane.
        engine, rank = self._engine, self._ticket.rank
        priority = rank.priority(ahead=ahead) if engine.supervisor.launch.priorities else None
        return for_line(line.body, line.url, self._claim.tenant, engine.settings.isolate_prefix_caches, priority)

    def _broken(self, line: Line, error: Exception) -> Record:
        log.error("line_broken", batch=self._claim.batch, line=line.number, exc_info=error)
        return output.ended(self._claim.batch, line.number, line.custom_id, BROKEN)

    async def _ask(self, line: Line) -> Outcome | None:
        """One line, from its slot to its end; None if the engine is dead, and nobody knows."""
        settings, engine = self._engine.settings, self._engine
        tries = LineTries(settings.line_tries, settings.line_timeout_seconds)
        try:
            return await ask_line(
                engine.client, self._gate, self._ticket, line, tries, engine_lives=engine.supervisor.lives
            )
        except EngineGone as error:
            self._lose_engine(line, error)
            return None

    def _lose_engine(self, line: Line, error: EngineGone) -> None:
        """The engine that was asked is dead: nothing more is fed, and what was in it is suspect."""
        self.engine_gone = True
        self._stopping = True
        if error.sent:
            self.in_flight.append(line.number)

    def _record(self, line: Line, outcome: Outcome, *, reused: bool = False) -> Record:
        batch = self._claim.batch
        if outcome.kind in _CODES:
            return output.ended(batch, line.number, line.custom_id, _CODES[outcome.kind])
        said = (outcome.status, outcome.request_id, outcome.body)
        try:
            return output.answered(batch, line.number, line.custom_id, *said, reused=reused)
        except Exception as error:
            return self._broken(line, error)


def _refused(message: str) -> Outcome:
    """A line that can't be sent is refused as an engine would do it."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": "invalid_request"}
    return Outcome(OutcomeKind.REFUSED, 400, msgspec.json.encode({"error": error}), None, 0)
