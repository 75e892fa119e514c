"""Last stages: the answer of an ensemble that reads texts, as its client's stream: as it comes, or cut into events.

a combine's judge, a cascade's last member    what they write is the answer: it passes as it comes
a vote, a best_of, what is degraded, reused   the whole answer that was decided, in pieces
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any

from penstock.domain.accounts.tokens import Usage
from penstock.formats.answers.answer_stream import answer_events
from penstock.formats.answers.stream_usage import with_sum
from penstock.formats.output import NO_USAGE, usage_of
from penstock.service.calls.call_reading import LONG_BODY_BYTES


async def passed(
    events: AsyncIterator[bytes],
    before: Mapping[str, Any] | None,
    ended: Callable[[Usage, bool], None],
    *,
    wants_usage: bool,
) -> AsyncIterator[bytes]:
    """A stream as it comes, whose usage is the sum of its own and of what was used `before` it.

    `ended` hears, however it ends, what it used itself, and whether its client heard it to its end.
    """
    used, whole = NO_USAGE, False
    try:
        async with aclosing(events) as all_of_them:  # type: ignore[type-var] # a generator
            async for piece in all_of_them:
                if b'"usage"' in piece:
                    found = usage_of(piece)
                    used = used if found == NO_USAGE else found
                if told := with_sum(piece, before, wanted=wants_usage):
                    yield told
        whole = True
    finally:
        ended(used, whole)


async def cut(body: bytes, endpoint: str, *, wants_usage: bool) -> AsyncIterator[bytes]:
    """The events of a whole answer."""
    if len(body) > LONG_BODY_BYTES:
        events = await asyncio.to_thread(answer_events, body, endpoint, with_usage=wants_usage)
    else:
        events = answer_events(body, endpoint, with_usage=wants_usage)
    return _each(events)


async def _each(events: Iterable[bytes]) -> AsyncIterator[bytes]:
    for event in events:
        yield event
