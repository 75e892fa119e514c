"""The part **packs** of `make bench-sync`: short texts that callers have embedded, on the real vLLM.

Three arms in turns within one run, for each number of callers: straight to the engine's socket; through the path, where
calls that come together are one request; and through the path with another `user` in each call, which makes each a
kind of its own that goes alone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import aiohttp
from bench import load, ours, paired
from bench.arms import Plan
from bench.batch_files import EMBEDDINGS
from bench.load import Call
from bench.trace import Size

ARMS: Final = ("direct", "apart", "path")
_TEXT: Final = (16, 20)
"""Tokens of a short text, as in bench-batch's row G."""
_WARM_UP_SECONDS: Final = 3.0


async def measure(
    plan: Plan, platform: ours.Ours, callers: Sequence[int], seconds: float, rounds: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Calls/s and times of each arm, for each number of callers."""
    found = []
    async with platform.engine.session() as engine, platform.api.session() as api, ours.tended(platform.running):
        roads = {"direct": engine, "apart": api, "path": api}
        plan.writer.tokens_per_word = await load.tokens_per_word(engine, plan.writer.model)
        for many in callers:
            for arm in ARMS:
                await _asked(roads[arm], plan, many, arm, _WARM_UP_SECONDS)
            calls: dict[str, list[list[Call]]] = {arm: [] for arm in ARMS}
            rates: dict[str, list[float]] = {arm: [] for arm in ARMS}
            for turn in range(rounds):
                for arm in random.Random(plan.seed * 10_000 + turn).sample(ARMS, len(ARMS)):
                    began = time.monotonic()
                    calls[arm].append(await _asked(roads[arm], plan, many, arm, seconds))
                    rates[arm].append(len(calls[arm][-1]) / (time.monotonic() - began))
            found.append(_row(many, calls, rates))
            say(f"{many} callers: {paired.median(rates['path']).text(0)} texts/s")
    return found


def _row(callers: int, calls: dict[str, list[list[Call]]], rates: dict[str, list[float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"callers": callers}
    for arm in ARMS:
        times = [1000 * call.total for block in calls[arm] for call in block]
        row[arm] = {
            "per_second": paired.median(rates[arm]).json(),
            **{f"p{percent}_ms": paired.percentile(times, percent) for percent in (50, 95)},
        }
    for other in ARMS[:2]:
        row[f"path_to_{other}"] = paired.ratios(list(zip(rates[other], rates["path"], strict=True))).json()
    return row


async def _asked(session: aiohttp.ClientSession, plan: Plan, callers: int, arm: str, seconds: float) -> list[Call]:
    chance, end = random.Random(plan.seed), time.monotonic() + seconds

    def bodies() -> Iterator[tuple[Size, dict[str, Any]]]:
        serial = 0
        while time.monotonic() < end:
            serial += 1
            tokens = chance.randint(*_TEXT)
            body = {"model": plan.writer.model, "input": plan.writer.text(tokens)}
            yield Size(tokens, 0), body | ({"user": f"caller {serial}"} if arm == "apart" else {})

    return await load.closed_loop(session, callers, bodies(), _embed)


async def _embed(session: aiohttp.ClientSession, size: Size, body: dict[str, Any]) -> Call:
    return await load.ask(session, size, body | {"encoding_format": "base64"}, EMBEDDINGS)
