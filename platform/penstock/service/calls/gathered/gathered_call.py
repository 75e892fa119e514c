"""Gathered calls: a waiting call to an ensemble asks its members, one after the other or all at once, and folds them.

a fallback, a cascade    the next member is asked when the one before gave no answer, or none that is good enough
a vote                   all are asked; once the rest can't change the winner they are aborted in their engines
a route with labels      its classifier is asked, and then the member that the rules choose; its stream passes as any
a best_of, a combine     all are asked, and then the judge, if there is something to judge
a fallback that streams  the next member is asked until one has said something: then its stream passes as any does
another kind that does   its members are asked for whole texts; its answer comes as last_stage says
two engines died of it   no further member is asked
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Final

from penstock.domain.accounts.tokens import Usage
from penstock.domain.api_errors import BadGateway, BadRequest, CallTimeout
from penstock.domain.ensembles import verdict
from penstock.domain.ensembles.ensemble import EnsembleKind
from penstock.domain.ensembles.verdict import EnsembleVerdict, Heard
from penstock.domain.inference_endpoints import BATCHED
from penstock.formats.answers.folded_answer import summed_usage
from penstock.service.calls.call import CallAnswer, Calls
from penstock.service.calls.call_metrics import MEMBERS, VOTE_AGREEMENT, VOTES_TIED
from penstock.service.calls.call_reading import LONG_BODY_BYTES
from penstock.service.calls.call_request import CallRequest, ensemble_header
from penstock.service.calls.call_tally import CallTally, Party
from penstock.service.calls.gathered import last_stage, member_call, quorum
from penstock.service.calls.gathered.member_call import CANCELLED, MemberEnd, PassedOn
from penstock.service.calls.gathered_request import GatheredRequest
from penstock.service.ensembles.fold import MISMATCH, Fold, Folded, MemberAnswer
from penstock.service.ensembles.routing import Unroutable

_MOST_DEATHS: Final = 2
_IN_BODY: Final = ("members", "judge", "classifier")
"""What a trace says that its head does not."""
_JSON: Final = "application/json"
_EVENTS: Final = "text/event-stream; charset=utf-8"


class GatheredCalls:
    """Those of one process, on one event loop."""

    def __init__(self, calls: Calls, tally: CallTally) -> None:
        self._calls = calls
        self._tally = tally

    @asynccontextmanager
    async def begin(self, ask: GatheredRequest, spend: Callable[[Usage], None]) -> AsyncIterator[CallAnswer]:
        """An answer, or one that has begun; whoever was asked hears when nobody listens any more.

        `spend` hears what each member's answer took, but for one that is passed on: its party is in the answer. Raises
        what `quorum.missed` says, and CallTimeout.
        """
        async with AsyncExitStack() as stack:
            fold = await _fold(ask)
            try:
                answer = await _Gathering(self._calls, self._tally, ask, fold, spend).answer(stack)
            except Unroutable as error:
                raise BadRequest(error.message, code=error.code) from None
            del ask  # a stream may last: nobody needs the call's body any more
            yield answer


async def _fold(ask: GatheredRequest) -> Fold:
    """What will hear and fold the answers; a schema may take milliseconds to be made ready."""
    definition, version = ask.ensemble.definition, ask.ensemble.version
    if definition.accept.json_schema is not None:
        return await asyncio.to_thread(Fold, definition, version)
    return Fold(definition, version, ask.settings.bytes_per_token)


class _Gathering:
    """One call's."""

    def __init__(
        self, calls: Calls, tally: CallTally, ask: GatheredRequest, fold: Fold, spend: Callable[[Usage], None]
    ) -> None:
        self._calls, self._tally, self._ask, self._spend = calls, tally, ask, spend
        self._definition = ask.ensemble.definition
        self._fold = fold
        self._ends: dict[int, MemberEnd] = {}
        self._heard: dict[int, Heard] = {}

    async def answer(self, stack: AsyncExitStack) -> CallAnswer:
        if not self._definition.in_turn:
            await self._ask_all()
            asks_judge = bool(self._judged().asks)
            passed = await self._ask_judge(stack) if asks_judge else None
        else:
            passed = await self._ask_in_turn(stack)
        return passed or await self._folded()

    # Asking.

    async def _ask_in_turn(self, stack: AsyncExitStack) -> CallAnswer | None:
        """One after the other until it is decided; an answer that is passed on is the call's."""
        members, kind = len(self._definition.members), self._definition.kind
        passing = PassedOn(stack) if kind in (EnsembleKind.FALLBACK, EnsembleKind.ROUTE) else None
        while not (found := self._judged()).decided:
            (place,) = found.asks
            if self._ask.streams and place == members - 1:  # its answer is taken, whatever it says
                if (passed := await self._ask_live(place, None, PassedOn(stack, only_streams=True))) is not None:
                    return passed
                continue
            asked = await self._member(place)
            opened = passing if place < members else None
            end = await member_call.ask(self._calls, asked, self._seconds(place), opened)
            if isinstance(end, CallAnswer):
                MEMBERS.labels(kind.value, "answered").inc()
                return replace(self._passed(end, asked, degraded=found.degraded), party=asked.party)
            await self._take(place, end, asked.party)
            if sum(one.deaths for one in self._ends.values()) >= _MOST_DEATHS:
                for other in set(range(members)) - self._ends.keys():
                    self._ends[other], self._heard[other] = CANCELLED, Heard(answered=False)
        return None

    def _seconds(self, place: int) -> float:
        """How long a member is waited for: the one that a route chose, as long as any call."""
        routed = self._definition.classifier is not None and place < len(self._definition.members)
        return math.inf if routed else self._definition.timeout_seconds

    async def _ask_all(self) -> None:
        """All at once, until those that have not answered can't change the result."""
        asked = {place: await self._member(place) for place in self._definition.first}
        tasks = {asyncio.create_task(self._whole(one)): place for place, one in asked.items()}
        waiting = set(tasks)
        try:
            while waiting and not self._judged().decided:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    await self._take(tasks[task], task.result(), asked[tasks[task]].party)
        finally:
            for task in waiting:
                task.cancel()
            ended = await asyncio.gather(*waiting, return_exceptions=True)
        for task, end in zip(waiting, ended, strict=True):  # one may have answered just then
            place = tasks[task]
            await self._take(place, end if isinstance(end, MemberEnd) else CANCELLED, asked[place].party)

    def _judged(self) -> EnsembleVerdict:
        return verdict.judge(self._definition, self._heard, sum(end.answer.cost for end in self._ends.values()))

    async def _ask_judge(self, stack: AsyncExitStack) -> CallAnswer | None:
        """What it is asked, all members have said; what it writes for a stream is passed on."""
        place = len(self._definition.members)
        answers = {place: end.answer for place, end in self._ends.items()}
        given = self._ask.given
        question = await asyncio.to_thread(self._fold.question, given.endpoint, given.raw, answers, self._heard)
        if self._ask.streams and self._definition.kind is EnsembleKind.COMBINE:
            return await self._ask_live(place, question, PassedOn(stack, only_streams=True, needs_text=True))
        asked = await asyncio.to_thread(self._ask.member, place, question)
        await self._take(place, await self._whole(asked), asked.party)
        return None

    async def _ask_live(self, place: int, question: bytes | None, passing: PassedOn) -> CallAnswer | None:
        """Whoever writes the answer: it is passed on as it comes, counted at its end; None: it was heard as others."""
        began = asyncio.get_running_loop().time()
        asked = await asyncio.to_thread(self._ask.member, place, question, live=True)
        end = await member_call.ask(self._calls, asked, self._definition.timeout_seconds, passing)
        if isinstance(end, MemberEnd):
            await self._take(place, end, asked.party)
            return None
        assert end.pieces is not None, "it comes in pieces"
        MEMBERS.labels(self._definition.kind.value, "answered").inc()
        before = summed_usage(one.answer.body for one in self._ends.values() if one.answer.body is not None)
        ended = functools.partial(
            _ended, self._tally, self._spend, asked.party, asyncio.get_running_loop().time() - began
        )
        pieces = last_stage.passed(end.pieces, before, ended, wants_usage=self._ask.wants_usage)
        return replace(self._passed(end, asked), pieces=pieces)

    async def _whole(self, asked: CallRequest) -> MemberEnd:
        end = await member_call.ask(self._calls, asked, self._definition.timeout_seconds)
        assert isinstance(end, MemberEnd), "nothing is passed on"
        return end

    async def _member(self, place: int) -> CallRequest:
        if len(self._ask.given.raw) > LONG_BODY_BYTES:
            return await asyncio.to_thread(self._ask.member, place)
        return self._ask.member(place)

    # What came of it.

    async def _take(self, place: int, end: MemberEnd, party: Party) -> None:
        """Hear what a member said, and count it."""
        MEMBERS.labels(self._definition.kind.value, end.answer.outcome).inc()
        if end is CANCELLED:
            self._tally.cancelled(party)
        else:
            self._tally.ended(party, end.status, end.answer.ms / 1_000)
        if end.answer.body is not None and self._ask.endpoint in BATCHED:  # of a tokenizer nothing is counted
            self._tally.answered(party, end.usage)
            self._spend(end.usage)
            if self._definition.max_cost is not None:
                end = replace(end, answer=replace(end.answer, cost=self._tally.cost(party, end.usage)))
        self._ends[place] = end
        self._heard[place] = await self._said(end.answer, place)

    async def _said(self, answer: MemberAnswer, place: int) -> Heard:
        raw = self._ask.given.raw
        classified = self._definition.classifier is not None and place == len(self._definition.members)
        reads = self._definition.looks_long or self._definition.accept.json_schema is not None
        long = len(answer.body or b"") > LONG_BODY_BYTES or (classified and len(raw) > LONG_BODY_BYTES)
        if (answer.body is not None or classified) and (reads or long):
            return await asyncio.to_thread(self._fold.heard, answer, place, raw)
        return self._fold.heard(answer, place, raw)

    async def _folded(self) -> CallAnswer:
        answers = {place: end.answer for place, end in self._ends.items()}
        folded = await self._fold_of(answers)
        if folded.body is None:
            assert folded.error is not None, "it is decided"
            if folded.error[0] == MISMATCH:
                raise BadGateway(folded.error[1], code=MISMATCH)
            if asyncio.get_running_loop().time() >= self._ask.deadline:
                raise CallTimeout
            raise quorum.missed(folded.error[1], self._blamed())
        winner = folded.verdict.winner
        assert winner is not None, "it has a body"
        if folded.verdict.agreement is not None:
            VOTE_AGREEMENT.observe(folded.verdict.agreement)
            VOTES_TIED.inc(folded.verdict.tied)
        told = self._fold.trace(folded.verdict, answers, self._heard)
        head = ensemble_header({name: value for name, value in told.items() if name not in _IN_BODY})
        more = self._version(self._ask.targets[winner].version) if self._definition.method is None else ()
        headers = (*self._ends[winner].headers, *more, head)
        if not self._ask.streams:
            return CallAnswer(200, _JSON, headers, folded.body)
        pieces = await last_stage.cut(folded.body, self._ask.endpoint, wants_usage=self._ask.wants_usage)
        return CallAnswer(200, _EVENTS, headers, None, pieces)

    def _blamed(self) -> list[MemberEnd]:
        """Of a route those that failed: its classifier's answer is none of a member."""
        routes = self._definition.classifier is not None
        return [end for place, end in self._ends.items() if not routes or not self._heard[place].answered]

    async def _fold_of(self, answers: Mapping[int, MemberAnswer]) -> Folded:
        fold = functools.partial(
            self._fold.fold, answers, self._heard, keeps_logprobs=self._ask.keeps_logprobs, endpoint=self._ask.endpoint,
            request=self._ask.given.raw,
        )  # fmt: skip
        long = sum(len(one.body or b"") for one in answers.values()) > LONG_BODY_BYTES  # twenty of a megabyte: 30 ms
        return await asyncio.to_thread(fold) if long or self._definition.method is not None else fold()

    def _passed(self, answer: CallAnswer, asked: CallRequest, *, degraded: bool = False) -> CallAnswer:
        assert asked.chosen is not None, "it is a member"
        told = asked.chosen.head | ({"degraded": True} if degraded else {})
        more = (*self._version(asked.target.version), ensemble_header(told))
        return replace(answer, headers=(*answer.headers, *more))

    def _version(self, version: str | None) -> tuple[tuple[str, str], ...]:
        return () if version is None else (("x-penstock-version", version),)


def _ended(
    tally: CallTally, spend: Callable[[Usage], None], party: Party, first_seconds: float, used: Usage, whole: bool
) -> None:
    """Count a stream that was passed on, as any stream is counted."""
    if whole:
        tally.ended(party, 200, first_seconds)
    tally.answered(party, used)
    spend(used)
