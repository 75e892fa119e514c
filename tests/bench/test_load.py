"""Callers measure what a client sees, on the echo engine, whose pace and counts are known."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from bench import arms, bare, counters, load, trace
from bench.arms import Plan
from bench.trace import Size


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An engine with four places that takes 20 ms for each request."""
    folder = tmp_path_factory.mktemp("bare")
    with bare.engine("tiny", "", folder, ["--latency-ms", "20"], kind="echo", seqs=4, say=lambda words: None) as socket:
        yield socket


def plan(**others: Any) -> Plan:
    writer = load.Writer("tiny", tokens_per_word=5.0)
    given = Plan(trace.synthetic(), writer, 0.01, 50.0, 0.5, 0.1, burst=6, seed=1)
    return replace(given, **others)


async def with_session(engine: Path, do: Any) -> Any:
    async with load.Target("engine", socket=engine).session() as session:
        return await do(session)


def test_a_streamed_call_knows_its_first_event_its_end_and_the_gaps_between(engine: Path) -> None:
    size = Size(8, 4)

    async def do(session: aiohttp.ClientSession) -> load.Call:
        return await load.stream(session, size, plan().writer.chat(size))

    call = asyncio.run(with_session(engine, do))
    assert call.ok
    assert 0.02 <= call.first <= call.total
    assert len(call.gaps) == call.events - 2 >= 1


def test_a_refused_call_is_no_fast_call(engine: Path) -> None:
    size = Size(8, 4)

    async def do(session: aiohttp.ClientSession) -> load.Call:
        return await load.stream(session, size, plan().writer.chat(size) | {"model": "other"})

    call = asyncio.run(with_session(engine, do))
    assert not call.ok
    assert arms.ttfts([call]) == []


def test_a_closed_loop_of_refusals_ends_the_benchmark(engine: Path) -> None:
    size = Size(8, 4)
    bodies = iter([(size, {"model": "other"})])
    with pytest.raises(ExceptionGroup, match="unhandled"):
        asyncio.run(with_session(engine, lambda session: load.closed_loop(session, 2, bodies)))


def test_a_window_beside_naive_batch_counts_lines_without_the_calls(engine: Path) -> None:
    """Four places of some 20 ms: 200 requests a second at most, calls included."""

    async def do(session: aiohttp.ClientSession) -> arms.Window:
        return await arms.naive("naive 8", 0, plan(), session, 8)

    found = asyncio.run(with_session(engine, do))
    assert len(found.calls) == len(plan().arrivals(0)) > 0
    assert all(call.ok for call in found.calls)
    assert 0 < found.lines_per_second < 200
    assert len(found.burst) == 6


def test_nothing_is_left_in_the_engine_after_an_arm(engine: Path) -> None:
    async def do(session: aiohttp.ClientSession) -> counters.Counts:
        await arms.naive("naive 8", 0, plan(burst=0), session, 8)
        return await counters.counts(session)

    now = asyncio.run(with_session(engine, do))
    assert now.running + now.waiting == 0
    assert now.answered > 0
