"""`make bench-sync` ends when it is told to, and what it has found by then is kept."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from bench import sync, trace
from bench.arms import Plan
from bench.load import Call, Writer
from bench.trace import Size

PLAN = Plan(trace.synthetic(), Writer("tiny"), 0.6, 4.0, 1.0, 0.0, 0, seed=1)


def given(minutes: float) -> argparse.Namespace:
    return argparse.Namespace(callers=[1, 8], repeats=40, minutes=minutes, seed=1)


async def block(session: aiohttp.ClientSession, plan: Plan, callers: int, each: int) -> list[Call]:
    return [Call(Size(8, 4), 0.0, 200, 0.1, 0.2)] * callers * each


def measured(minutes: float, began: float) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    roads: Any = {"direct": None, "path": None}
    asyncio.run(sync.in_turns(given(minutes), PLAN, roads, began, found.append))
    return found


def test_minutes_count_from_the_start_of_the_process_and_each_number_of_callers_has_its_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sync, "_block", block)
    late = measured(5.0, began=time.monotonic() - 301)  # the platform took all of it to start
    assert [(row["callers"], row["repeats"]) for row in late] == [(1, 3), (8, 3)]
    assert [row["repeats"] for row in measured(5.0, began=time.monotonic())] == [40, 8]
    assert [row["repeats"] for row in measured(0.0, began=time.monotonic() - 301)] == [40, 8]


def test_one_caller_is_on_disk_when_the_benchmark_ends_among_eight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "found.json"
    seen: list[bool] = []

    async def stopped(session: aiohttp.ClientSession, plan: Plan, callers: int, each: int) -> list[Call]:
        if callers == 8:
            seen.append('"callers": 1,' in file.read_text())
            raise KeyboardInterrupt
        return await block(session, plan, callers, each)

    def on_nothing(folder: Path, engine: str, arguments: object, source: object, measure: Any) -> None:
        asyncio.run(measure(None))

    async def latency(given: Any, plan: Plan, platform: None, began: float, keep: Any) -> None:
        await sync.in_turns(given, plan, {"direct": None, "path": None}, began, keep)  # type: ignore[dict-item]

    monkeypatch.setattr(sync, "_block", stopped)
    monkeypatch.setattr(sync, "_on", on_nothing)
    monkeypatch.setattr(sync, "latency", latency)
    monkeypatch.setattr(sys, "argv", ["sync", "--parts", "latency", "--engine", "echo", "--json", str(file)])
    with pytest.raises(KeyboardInterrupt):
        sync.main()
    assert seen == [True]
