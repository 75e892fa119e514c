"""Member calls: one member of an ensemble is asked as any call is, and what came of it is told, never raised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from penstock.domain.accounts.tokens import Usage
from penstock.domain.api_errors import CallTimeout, EngineCrash, PenstockError, TooMany, Unavailable
from penstock.formats.answers import call_answer
from penstock.formats.answers.member_line import refusal_code
from penstock.formats.answers.stream_start import says_something, writes_text
from penstock.formats.answers.stream_usage import body_of_usage
from penstock.formats.output import NO_USAGE, usage_of
from penstock.service.calls.call import CallAnswer, Calls
from penstock.service.calls.call_request import CallRequest
from penstock.service.ensembles.fold import MemberAnswer

_MOST_HELD_BYTES: Final = 64 * 1024
"""Of a stream that has not said anything yet."""
_MOST_THOUGHTS_BYTES: Final = 1024 * 1024
"""Of one that has not written any text yet."""


@dataclass(frozen=True, slots=True)
class PassedOn:
    """How an answer is passed on as it comes, once it has said something."""

    until: AsyncExitStack
    """What keeps it open."""
    only_streams: bool = False
    """A long answer that is no stream is none."""
    needs_text: bool = False
    """What has written no text at its end is not passed on; until then its thoughts are held."""


@dataclass(frozen=True, slots=True)
class MemberEnd:
    """What came of one member."""

    answer: MemberAnswer
    status: int
    """As a client of that model alone would have had it."""
    headers: tuple[tuple[str, str], ...] = ()
    retry_after_seconds: int | None = None
    usage: Usage = NO_USAGE
    deaths: int = 0
    """Of engines that had it."""


_DEATHS: Final = frozenset({"engine_crash", "worker_lost"})
CANCELLED: Final = MemberEnd(MemberAnswer("cancelled"), 499)
"""It was asked, and can't change the result any more; or it needs not be asked."""


async def ask(
    calls: Calls, asked: CallRequest, seconds: float, passing: PassedOn | None = None
) -> MemberEnd | CallAnswer:
    """Ask a member, for so long at most.

    An answer that is no whole one is passed on as `passing` says; without that it is none.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    streams = False
    async with AsyncExitStack() as trying:
        begun: CallAnswer | MemberEnd
        try:
            async with asyncio.timeout_at(min(asked.deadline, began + seconds)):
                begun = answer = await trying.enter_async_context(calls.begin(asked))
                streams = answer.pieces is not None and answer.content_type.startswith(call_answer.EVENT_STREAM)
                if streams and answer.pieces is not None:
                    await trying.enter_async_context(aclosing(answer.pieces))  # type: ignore[type-var] # a generator
                    begun = await _started(answer, needs_text=passing is not None and passing.needs_text)
        except TimeoutError:
            begun = _of_error(CallTimeout())
        except PenstockError as error:
            begun = _of_error(error)
        passes = passing is not None and (streams or not passing.only_streams)
        if isinstance(begun, CallAnswer) and begun.pieces is not None and passing is not None and passes:
            passing.until.push_async_exit(trying.pop_all())
            return begun
    end = _of_answer(begun) if isinstance(begun, CallAnswer) else begun
    ms = 0 if end.answer.outcome == "reused" else round((loop.time() - began) * 1_000)
    return replace(end, answer=replace(end.answer, ms=ms))


def _of_answer(answer: CallAnswer) -> MemberEnd:
    body = answer.whole
    if answer.status >= 300:
        code = refusal_code(body or b"", answer.status)
        after = dict(answer.headers).get("retry-after", "")
        refused = MemberAnswer("refused", code=code, refused_status=answer.status)
        return MemberEnd(refused, answer.status, retry_after_seconds=int(after) if after.isdecimal() else None)
    if body is None:
        return MemberEnd(MemberAnswer("failed", code="answer_too_large"), 502)
    try:
        call_answer.fields_of(body)
    except ValueError:
        return MemberEnd(MemberAnswer("failed", code="not_json"), 502)
    used = usage_of(body, reused=answer.reused)
    outcome = "reused" if answer.reused else "answered"
    return MemberEnd(MemberAnswer(outcome, body, tokens=used.total_tokens), 200, answer.headers, usage=used)


def _of_error(error: PenstockError) -> MemberEnd:
    """An error that its client would have had of this model alone."""
    deaths = 2 if isinstance(error, EngineCrash) else int(error.code == "engine_crash")
    if isinstance(error, (Unavailable, TooMany)) and not deaths:
        after = error.headers.get("retry-after", "")
        said = MemberAnswer("unavailable", code=error.code)
        return MemberEnd(said, error.status, retry_after_seconds=int(after) if after.isdecimal() else None)
    if error.status < 500:
        return MemberEnd(MemberAnswer("refused", code=error.code, refused_status=error.status), error.status)
    return MemberEnd(MemberAnswer("failed", code=error.code), error.status, deaths=deaths)


async def _started(answer: CallAnswer, *, needs_text: bool) -> CallAnswer | MemberEnd:
    """A stream that has said something; or what came of it, if that is an error, or if it `needs_text` and has none."""
    assert answer.pieces is not None, "it is a stream"
    held = bytearray()
    says, most = (writes_text, _MOST_THOUGHTS_BYTES) if needs_text else (says_something, _MOST_HELD_BYTES)
    async for piece in answer.pieces:
        if call_answer.has_error(piece):
            code = _code(_data(piece)) or "stream_error"
            return MemberEnd(MemberAnswer("failed", code=code), 500, deaths=int(code in _DEATHS))
        held += piece
        if says(piece) or len(held) > most:
            break
    else:
        if needs_text:
            return _of_answer(replace(answer, whole=body_of_usage(bytes(held)), pieces=None))
    return replace(answer, pieces=_after(bytes(held), answer.pieces))


async def _after(held: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async with aclosing(pieces) as rest:  # type: ignore[type-var] # a generator
        yield held
        async for piece in rest:
            yield piece


def _data(events: bytes) -> bytes:
    """The first error among a stream's events."""
    rest = events[call_answer.before_error(events) :]
    return rest.partition(b"\n")[0].removeprefix(b"data: ")


class _Error(msgspec.Struct):
    error: Any = None


_read_error = msgspec.json.Decoder(_Error).decode


def _code(body: bytes) -> str | None:
    """The code of an error in OpenAI's envelope, or its family."""
    try:
        error = _read_error(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    found = (error.get("code") or error.get("type")) if isinstance(error, dict) else None
    return found if isinstance(found, str) else None
