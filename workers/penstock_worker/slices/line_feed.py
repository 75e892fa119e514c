"""The line feed: a slice's lines go through the gate into the engine as fast as the gate allows; records come back.

Gate, engine client and every coroutine here live on one asyncio loop in a thread of its own; Celery's threads hand a
slice's lines over in one block, and get messages back. Equal lines are asked once (reuse.py), embeddings or scores that
are alike in one request (pack.py).
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog

from penstock.domain.adapter import AdapterFault
from penstock.domain.line_errors import BROKEN, TIMED_OUT, TOO_LARGE, UNREACHED
from penstock.domain.reuse import ReuseSource
from penstock.domain.work.rank import OF_LANE
from penstock.domain.work.slice import Claim
from penstock.formats import output, sequences
from penstock.formats.answers import engine_error
from penstock.formats.engine_body import for_line, with_model, without_salt
from penstock.formats.input import Line, model_of
from penstock.formats.output import Record
from penstock_worker.admission.gate import Gate, Ticket
from penstock_worker.engine.adapters.adapter_residency import AdapterResidency, Resident
from penstock_worker.engine.client import EngineGone
from penstock_worker.engine_context import EngineContext
from penstock_worker.runtime.beat import Grip
from penstock_worker.slices.line_request import EngineLimits, LineTries, Outcome, OutcomeKind, ask_line
from penstock_worker.slices.pack import Pack, packed
from penstock_worker.slices.reuse import Group, is_theirs_too, keep
from penstock_worker.slices.said import said

log = structlog.get_logger()

_DOUBT_SECONDS: Final = 0.1
_PACK_PART: Final = 4
"""A pack has at most a quarter of the lines that may be in flight: while one is made or read, others are computed."""
_CODES: Final = {
    OutcomeKind.TIMED_OUT: TIMED_OUT,
    OutcomeKind.UNREACHED: UNREACHED,
    OutcomeKind.TOO_LARGE: TOO_LARGE,
}
"""What the lines say in the output that ended without a word of the engine's."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Records of a leader and its followers: they come together."""

    records: list[Record]


@dataclass(frozen=True, slots=True)
class AllFed:
    """Every line has had its turn at the gate: none waits for a slot any more, but to be asked again."""


@dataclass(frozen=True, slots=True)
class EngineLost:
    """The engine died: nothing more is fed. `lines` were in it, if they had been sent."""

    lines: list[int]


@dataclass(frozen=True, slots=True)
class Finished:
    """No line is in flight, and none will be fed; `error` is what broke the feed. The last message, unless the feed was
    cancelled: answers that come after that are taken by nobody, or recorded."""

    error: BaseException | None


Message = Answered | AllFed | EngineLost | Finished
"""What the loop tells the thread that runs the slice."""


@dataclass(frozen=True, slots=True)
class Admission:
    """A line's slot: with which ticket it was taken, and whether it goes ahead of its own rank in the engine."""

    ticket: Ticket
    ahead: bool
    adapter: Resident | None = None
    """The one that it asks, which stays in the engine meanwhile."""


class LineFeed:
    """One slice's lines in the engine. What its attributes say is as of the last `collect`, which reads messages."""

    def __init__(
        self,
        engine: EngineContext,
        claim: Claim,
        groups: Sequence[Group],
        grip: Grip,
        gate: Gate | None = None,
    ) -> None:
        """`gate`: one of its own, for suspects, each of which is asked by itself."""
        self._engine = engine
        self._gate = gate or engine.gate
        self._claim = claim
        self._ticket = Ticket(OF_LANE[claim.lane], claim.account, claim.deadline.timestamp(), claim.slice)
        settings = engine.settings
        counter = engine.token_counter if gate is None else None
        self._packs = packed(groups, counter, settings.pack_lines, settings.pack_tokens)
        self._grip = grip
        self._messages: deque[Message] = deque()
        self._stop = threading.Event()
        self.fed = False
        self.done = False
        self.engine_gone = False
        self.in_flight: list[int] = []
        """The lines that were in the engine when it died."""
        self.error: BaseException | None = None
        self._future = engine.loop.run(self._feed())
        self._future.add_done_callback(self._finished)

    def collect(self) -> list[Record]:
        """Read what the loop told since the last call; the records among it."""
        records: list[Record] = []
        while self._messages:
            match self._messages.popleft():
                case Answered(found):
                    records += found
                case AllFed():
                    self.fed = True
                case EngineLost(lines):
                    self.engine_gone = True
                    self.in_flight += lines
                case Finished(error):
                    self.done, self.error = True, error
        return records

    def stop(self) -> None:
        """Feed no more lines; those in flight go on."""
        self._stop.set()

    def cancel(self) -> None:
        """Abort what is in flight too."""
        self._stop.set()
        self._future.cancel()

    def _finished(self, future: Future[Any]) -> None:
        self._messages.append(Finished(None if future.cancelled() else future.exception()))
        self._grip.news.set()

    async def _feed(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            await self._admit_each(self._packs, tasks)
            self._messages.append(AllFed())
            self._grip.news.set()

    async def _admit_each(self, packs: Iterable[Pack], tasks: asyncio.TaskGroup, spent_seconds: float = 0.0) -> None:
        """Take each to its slots; the tasks bring them to their ends. They had so much of their time before."""
        waiting = deque(packs)
        while waiting:
            pack = self._next(waiting)
            asked = pack.asked()
            try:
                admission = await self._admitted(asked)
            except AdapterFault as fault:
                self._refuse([group for one in (pack, *waiting) for group in one.groups], fault)
                return
            if admission is None:
                return
            tasks.create_task(self._end_pack(pack, asked, admission, spent_seconds))

    def _next(self, waiting: deque[Pack]) -> Pack:
        """The first one, or of one that is too large now its first part."""
        counter = self._engine.token_counter
        sure = counter is not None and not counter.doubted
        most = max(1, self._gate.budget // _PACK_PART) if sure else 1
        pack = waiting.popleft()
        if len(pack.groups) > most:
            pack, *others = pack.parts(most)
            waiting.extendleft(reversed(others))
        return pack

    def _refuse(self, groups: Sequence[Group], fault: AdapterFault) -> None:
        """Their adapter can't be used: what is wrong with it is wrong for all of them."""
        log.warning("adapter_unusable", batch=self._claim.batch, adapter=self._claim.adapter, why=str(fault))
        outcome = _refused(str(fault), "adapter_unusable")
        self._messages.append(Answered([self._record(line, outcome) for one in groups for line in one.lines]))

    async def _admitted(self, line: Line) -> Admission | None:
        """Take a line's slot while the lease is trusted; None if nothing more is to be fed. Raises AdapterFault."""
        if self._claim.adapter is None:
            return await self._slot(line, None)
        adapters = self._engine.adapters
        if adapters is None:
            raise AdapterFault("This worker loads no adapters.")
        with adapters.wanted(self._claim.adapter.id):
            try:
                return await self._slot(line, adapters)
            except EngineGone as error:
                self._lose_engine([line], error)
                return None

    async def _slot(self, line: Line, adapters: AdapterResidency | None) -> Admission | None:
        many = sequences.of_body(line.body)
        tokens = round(len(line.body) / self._engine.settings.bytes_per_token)
        ticket = dataclasses.replace(self._ticket, sequences=many, tokens=tokens)
        wanted = self._claim.adapter.id if self._claim.adapter else ""
        while not self._stop.is_set():
            if not self._grip.trusted:
                await asyncio.sleep(_DOUBT_SECONDS)
                continue
            if adapters is not None:
                await adapters.ready(wanted)
            ahead = await self._gate.admit(ticket)
            if self._grip.trusted and not self._stop.is_set():
                inside = None if adapters is None else adapters.enter(wanted)
                if adapters is None or inside is not None:
                    return Admission(ticket, ahead, inside)
            self._gate.release(ticket)
        return None

    async def _end_pack(self, pack: Pack, asked: Line, admission: Admission, spent_seconds: float) -> None:
        """Bring a pack to its end, by parts of it where need be.

        It is asked once, which is none of its lines' tries, and has half of their time: each alone has the rest.
        """
        if len(pack.groups) == 1:
            await self._end(pack.groups[0], admission, spent_seconds)
            return
        tries = LineTries(1, (self._engine.settings.line_timeout_seconds - spent_seconds) / 2)
        outcome = await self._tried(pack.lines, asked, admission, tries)
        if outcome is None:
            return
        answer = outcome if isinstance(outcome, Outcome) else None
        outcomes = answer and pack.apart(answer)
        if outcomes:
            told = list(zip(pack.groups, outcomes, strict=True))
            for group, one in told:
                if one:
                    self._answered(group, 0, one)
            again = [Pack([group]) for group, one in told if not one]
        else:
            again = pack.after(answer)
            if answer and answer.kind is OutcomeKind.ANSWERED and self._engine.token_counter:
                self._engine.token_counter.doubt()
        if again:
            async with asyncio.TaskGroup() as tasks:
                await self._admit_each(again, tasks, spent_seconds + tries.spent_seconds)

    async def _end(self, group: Group, admission: Admission | None, spent_seconds: float) -> None:
        """Bring a group to its end: a leader that ended by itself takes the others along, else the next is asked."""
        lines = group.lines
        for place, line in enumerate(lines):
            if place:
                try:
                    admission = await self._admitted(line)
                except AdapterFault as fault:
                    self._refuse([Group(lines[place:])], fault)
                    return
            if admission is None:
                return
            settings = self._engine.settings
            left_seconds = settings.line_timeout_seconds - (0.0 if place else spent_seconds)
            tries = LineTries(settings.line_tries, left_seconds)
            outcome = await self._tried([line], line, admission, tries)
            if outcome is None:
                return
            if isinstance(outcome, Outcome) and is_theirs_too(outcome):
                self._answered(group, place, outcome)
                return
            record = self._record(line, outcome) if isinstance(outcome, Outcome) else outcome
            self._messages.append(Answered([record]))

    def _answered(self, group: Group, place: int, outcome: Outcome) -> None:
        """A line of a group ended so, and those after it with it."""
        line, *followers = group.lines[place:]
        reused = [self._record(follower, outcome, ReuseSource.EQUAL) for follower in followers]
        self._messages.append(Answered([self._record(line, outcome), *reused]))
        keep(self._claim, group, outcome, self._engine.answer_cache)

    async def _tried(
        self, lines: Sequence[Line], asked: Line, admission: Admission, tries: LineTries
    ) -> Outcome | Record | None:
        """How these lines ended that were asked as one; None if the engine is gone, and nobody knows.

        A bug of ours that one line brings out ends that line, not its slice: else it would come back for ever.
        """
        try:
            try:
                request = dataclasses.replace(asked, body=self._body(asked, admission))
            except Exception as error:
                self._gate.release(admission.ticket)
                return _refused(str(error)) if isinstance(error, ValueError) else self._broken(asked, error)
            return await self._ask(request, admission.ticket, tries)
        except EngineGone as error:
            self._lose_engine(lines, error)
            return None
        except Exception as error:
            return self._broken(asked, error)
        finally:
            if admission.adapter is not None and self._engine.adapters is not None:
                self._engine.adapters.leave(admission.adapter)

    def _body(self, line: Line, admission: Admission) -> bytes:
        # Trials are asked through a gate of their own, and by the engine like the rest of their lane.
        engine, rank = self._engine, self._ticket.rank
        launch = engine.supervisor.launch
        profile = launch.profile
        priority = profile.told_priority(rank.priority(ahead=admission.ahead))
        salted = profile.cache_salt and engine.settings.isolate_prefix_caches
        name = launch.model if admission.adapter is None else admission.adapter.name
        named = line.body if self._claim.asked is None else with_model(line.body, name)
        body = for_line(named, line.url, self._claim.tenant, salted, priority)
        return body if profile.cache_salt else without_salt(body)

    def _broken(self, line: Line, error: Exception) -> Record:
        log.error("line_broken", batch=self._claim.batch, line=line.number, exc_info=error)
        return output.ended(self._claim.batch, line.number, line.custom_id, BROKEN)

    async def _ask(self, line: Line, ticket: Ticket, tries: LineTries) -> Outcome:
        """One request, from its slots to its end. Raises EngineGone if the engine is dead, and nobody knows."""
        engine = self._engine
        return await ask_line(
            engine.client,
            self._gate,
            ticket,
            line,
            tries,
            engine_lives=engine.supervisor.lives,
            limits=EngineLimits(engine.supervisor.launch.profile, engine.backpressure),
        )

    def _lose_engine(self, lines: Sequence[Line], error: EngineGone) -> None:
        """The engine that was asked is dead: nothing more is fed, and what was in it is suspect."""
        self._stop.set()
        self._messages.append(EngineLost([line.number for line in lines] if error.sent else []))

    def _record(self, line: Line, outcome: Outcome, reused: ReuseSource | None = None) -> Record:
        batch = self._claim.batch
        if outcome.kind in _CODES:
            return output.ended(batch, line.number, line.custom_id, _CODES[outcome.kind])
        try:
            status, body = outcome.status, outcome.body
            how = "reused" if reused else "answered"
            if outcome.kind is OutcomeKind.REFUSED:
                status, body = engine_error.told(status, body, model_of(line.body), line.url)
                how = "refused"
            body = said(self._claim, body, how, 0.0 if reused else outcome.seconds)
            told = (status, outcome.request_id, body)
            record = output.answered(batch, line.number, line.custom_id, *told, reused=reused)
        except Exception as error:
            return self._broken(line, error)
        if outcome.kind is OutcomeKind.ANSWERED and not reused:
            self._engine.backpressure.answered(outcome.seconds, record.usage.output_tokens)
        return record


def _refused(message: str, code: str = "invalid_request") -> Outcome:
    """A line that can't be sent is refused as an engine would do it."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return Outcome(OutcomeKind.REFUSED, 400, msgspec.json.encode({"error": error}), None, 0)
