"""A run of `make bench-lanes` loses nothing: windows are on disk, lost arms are named, time ends it between rounds."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

import pytest
from bench import lanes_report, result, trace
from bench.arms import Plan, Window
from bench.lanes_run import Bench
from bench.load import Call, Writer
from bench.trace import Size


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    given = argparse.Namespace(json=tmp_path / "found.json", minutes=0.0, seed=1, bare_seqs=128, rounds=3, against=[])
    plan = Plan(trace.synthetic(), Writer("tiny"), 0.6, 4.0, 1.0, 0.0, 0, seed=1)
    return Bench(given, plan, result.begin(given))


def window(arm: str, round: int, lines: float = 10.0) -> Window:
    return Window(arm, round, [Call(Size(8, 4), 0.0, 200, 0.1, 0.2)], lines, 10 * lines, (1.0, 1.0))


async def measured(found: Window) -> Window:
    return found


async def fails() -> Window:
    raise TimeoutError("the server gives no answer")


async def fails_in_a_group() -> Window:
    async with asyncio.TaskGroup() as group:
        group.create_task(fails())
    raise AssertionError("unreachable")


def test_a_window_is_on_disk_as_soon_as_it_is_measured(bench: Bench) -> None:
    asyncio.run(bench.arm("ours", 0, measured(window("ours", 0))))
    found = json.loads(bench.given.json.read_text())
    assert [one["arm"] for one in found["windows"]] == ["ours"]
    assert [(row["arm"], row["rounds"], row["refused"]) for row in found["curve"]] == [("ours", 1, 0)]
    assert found["code"]["penstock"]


def test_an_arm_that_fails_is_named_and_the_others_go_on(bench: Bench) -> None:
    async def run() -> None:
        await bench.arm("ours", 0, fails())
        await bench.arm("naive 32", 0, fails_in_a_group())
        await bench.arm("ours", 1, measured(window("ours", 1)))

    asyncio.run(run())
    found = json.loads(bench.given.json.read_text())
    assert [(one["arm"], one["round"]) for one in found["lost"]] == [("ours", 0), ("naive 32", 0)]
    assert "the server gives no answer" in found["lost"][0]["why"]
    assert len(found["windows"]) == 1
    lanes_report.show(found | {"curve": lanes_report.curve(bench.windows)})


def test_a_mistake_in_the_benchmark_is_no_lost_arm(bench: Bench) -> None:
    async def mistaken() -> Window:
        raise KeyError("arm")

    with pytest.raises(KeyError):
        asyncio.run(bench.arm("ours", 0, mistaken()))


def test_arms_are_paired_by_round_even_if_one_was_lost(bench: Bench) -> None:
    for one in (
        window("naive 32", 0, 1.0),
        window("naive 32", 2, 3.0),
        window("ours", 1, 20.0),
        window("ours", 2, 30.0),
    ):
        bench.keep(one)
    pairs = bench.both("naive 32", "ours")
    assert [(one.lines_per_second, other.lines_per_second) for one, other in pairs] == [(3.0, 30.0)]


def test_time_that_is_over_ends_a_part_after_a_whole_round_and_never_before_the_first(bench: Bench) -> None:
    assert list(bench.rounds(3)) == [0, 1, 2]
    bench.given.minutes = 1.0
    bench.began -= 120
    assert list(bench.rounds(3)) == [0]


def test_two_platforms_are_compared_in_the_rounds_that_both_have(bench: Bench) -> None:
    other = bench.given.against_arm = "ours PENSTOCK_STEADY_REFILL=off"
    bench.given.against = [("PENSTOCK_STEADY_REFILL", "off")]
    for arm, round, lines in (("none", 0, 0.0), ("ours", 0, 12.0), (other, 0, 10.0), ("ours", 1, 99.0)):
        bench.keep(window(arm, round, lines))
    told = {row["what"]: row["found"] for row in lanes_report.targets(bench)}
    assert told[f"(f) batch lines/s over those of {other}"].startswith("1.20")
    assert told["(f) ours: TTFT p95 and max over the p50 of calls alone (1 calls)"] == "1.0 and 1.0"
