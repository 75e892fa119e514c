"""Tokenizing: how many tokens prompts have, as an engine of their model counts them; asked as waiting calls are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import Final

import msgspec

from penstock.domain.api_errors import NoEndpoint, PenstockError
from penstock.domain.engines.profile import EngineLack
from penstock.formats.prompt import Prompt
from penstock.service.calls.call import Calls
from penstock.service.calls.call_attempt import Broken
from penstock.service.calls.call_request import CallRequest
from penstock.service.calls.gathered_request import GatheredRequest

ENDPOINT: Final = "/tokenize"
_AT_ONCE: Final = 8
_MOST_ANSWER_BYTES: Final = 16 * 1024 * 1024


class _Counted(msgspec.Struct):
    count: int


async def count(
    calls: Calls, id: str, tenant: str, prompts: Sequence[Prompt | None], seconds: float
) -> list[int | None]:
    """The tokens of each prompt; None for what nobody could count within this time."""
    found: list[int | None] = [None] * len(prompts)
    known: dict[bytes, int | None] = {}
    room = asyncio.Semaphore(_AT_ONCE)
    given_up = False

    async def one(place: int, prompt: Prompt) -> None:
        nonlocal given_up
        async with room:
            if given_up:
                return
            try:
                for n, raw in enumerate(prompt.asks):
                    if raw not in known:  # the texts of labels come again and again
                        known[raw] = await _ask(calls, f"{id}-{place}-{n}", tenant, raw)
            except (PenstockError, Broken):
                given_up = True  # no worker, or it has no tokenizer: the others would hear the same
                return
        counted = [known[raw] for raw in prompt.asks]
        if None not in counted:
            found[place] = prompt.known + sum(number or 0 for number in counted)

    with suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for place, prompt in enumerate(prompts):
                if prompt is not None:
                    group.create_task(one(place, prompt))
    return found


async def _ask(calls: Calls, id: str, tenant: str, raw: bytes) -> int | None:
    """None if the engine refuses this one. How many there are at once, the limit of estimates says.

    Raises NoEndpoint where no engine of the model has a tokenizer.
    """
    ask = await calls.read(id, tenant, ENDPOINT, raw, None)
    if isinstance(ask, GatheredRequest):
        ask = ask.member(0)
    if calls.lacks(ask.model, EngineLack.TOKENIZER):
        raise NoEndpoint
    return await _counted(calls, ask)


async def _counted(calls: Calls, ask: CallRequest) -> int | None:
    async with calls.begin(ask, wakes=False) as answer:
        whole = bytearray(answer.whole or b"")
        if answer.pieces is not None:
            async with aclosing(answer.pieces) as pieces:  # type: ignore[type-var] # a generator
                async for piece in pieces:
                    whole += piece
                    if len(whole) > _MOST_ANSWER_BYTES:
                        return None
    if answer.status != 200:
        return None
    try:
        return msgspec.json.decode(bytes(whole), type=_Counted).count
    except msgspec.DecodeError:
        return None
