"""`make bench-switching`: many versions on one place; how often each policy switches, what that costs, who waits.

Simulated, and named so: the clock, the engines (a fixed speed, a fixed time to switch) and the arrivals. Real: the
policy. Seeds, bounds and targets stand in `bench/switching_scenario.py`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
from bench import result, stop, switching_scenario, trace
from bench.switching_policies import POLICIES
from bench.switching_pool import CALL, Outcome, Pool
from bench.switching_scenario import COUNTS, ENGINES, HOURS, LOADS, SEEDS, SHARE_LOST, Cell
from rich.console import Console
from rich.table import Table

from penstock.domain.work.lane import LANES

KINDS: Final = (CALL, *map(str, LANES))


@dataclass(frozen=True)
class Run:
    """One policy on one cell's arrivals of one seed."""

    cell: Cell
    policy: str
    seed: int
    outcome: Outcome
    took_seconds: float


@dataclass(frozen=True)
class Group:
    """One version's work of one lane in one run, whose p99 wait is above the lane's bound."""

    seed: int
    version: str
    kind: str
    p99_seconds: float
    bound_seconds: float
    said: bool
    """Every item that waited beyond the bound was named in a decision before."""


def play(asked: tuple[Cell, str, int, float, int, Path | None]) -> Run:
    """Simulate one run."""
    cell, policy, seed, hours, places, file = asked
    arrivals = switching_scenario.drawn(trace.of(file), cell, seed, hours)
    began = time.perf_counter()
    outcome = Pool(cell, arrivals, places).run(POLICIES[policy]())
    return Run(cell, policy, seed, outcome, time.perf_counter() - began)


def beyond(run: Run) -> list[Group]:
    """Versions and lanes of a run whose p99 wait is above their bound."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for one in run.outcome.waits:
        if one.bound is not None:
            groups.setdefault((one.version, one.kind), []).append(one)
    found = []
    for (version, kind), waits in groups.items():
        bound = waits[0].bound
        if (p99 := float(np.percentile([one.seconds for one in waits], 99))) > bound + 1e-3:
            found.append(Group(run.seed, version, kind, p99, bound, not any(one.unsaid for one in waits)))
    return found


def summed(runs: Sequence[Run]) -> dict[str, Any]:
    """What runs of one policy came to, in sum."""
    outcomes = [run.outcome for run in runs]
    waits = [one for outcome in outcomes for one in outcome.waits]
    tokens = sum(one.tokens for one in outcomes)
    seconds = sum(one.seconds for one in outcomes)
    broken = [group for run in runs for group in beyond(run)]
    kinds = {kind: [one.seconds for one in waits if one.kind == kind] for kind in KINDS}
    reasons: dict[str, int] = {}
    for one in outcomes:
        for why, count in one.reasons.items():
            reasons[str(why)] = reasons.get(str(why), 0) + count
    return {
        "switches": sum(one.switches for one in outcomes),
        "switches_per_million_tokens": round(sum(one.switches for one in outcomes) / tokens * 1e6, 3),
        "share_lost": round(sum(one.lost_seconds for one in outcomes) / seconds, 4),
        "share_away_from_work": round(sum(one.away_seconds for one in outcomes) / seconds, 4),
        "batches": sum(one.kind != CALL for one in waits),
        "late": sum(one.late for one in outcomes),
        "late_unsaid": sum(one.late_unsaid for one in outcomes),
        "calls": len(kinds[CALL]),
        "calls_given_up": sum(one.gave_up for one in outcomes),
        "wait_p50_seconds": round(float(np.median([one.seconds for one in waits])), 1),
        "wait_p99_seconds": {kind: round(float(np.percentile(found, 99)), 1) for kind, found in kinds.items() if found},
        "worst_p99_to_bound": round(max((one.p99_seconds / one.bound_seconds for one in broken), default=1.0), 2),
        "groups_beyond_bound": len(broken),
        "groups_unsaid": sum(not one.said for one in broken),
        "said_in_vain": sum(one.vain for one in waits),
        "reasons": dict(sorted(reasons.items())),
        "beyond": [asdict(one) for one in broken],
    }


def show(title: str, rows: dict[str, dict[str, Any]], console: Console) -> None:
    """One table: a line for each policy."""
    table = Table(title=title)
    heads = "policy", "switches/M tokens", "lost", "from work", "late", "wait p50", *(f"p99 {kind}" for kind in KINDS)
    for head in (*heads, "worst p99/bound", "beyond bound", "unsaid"):
        table.add_column(head, justify="left" if head == "policy" else "right")
    for policy, row in rows.items():
        table.add_row(
            policy,
            f"{row['switches_per_million_tokens']:.2f}",
            f"{row['share_lost']:.1%}",
            f"{row['share_away_from_work']:.1%}",
            f"{row['late']} of {row['batches']}",
            f"{row['wait_p50_seconds']:,.0f}",
            *(f"{row['wait_p99_seconds'].get(kind, 0):,.0f}" for kind in KINDS),
            f"{row['worst_p99_to_bound']:.2f}",
            str(row["groups_beyond_bound"]),
            str(row["groups_unsaid"]) if policy == "ours" else "–",
        )
    console.print(table)


def judge(runs: Sequence[Run], console: Console) -> dict[str, Any]:
    """The three targets, in sum of all cells that were played."""
    ours = [run for run in runs if run.policy == "ours"]
    roomy = [run for run in ours if run.cell.has_room]
    found: dict[str, Any] = {}
    if roomy:
        share = summed(roomy)["share_lost"]
        found["share_lost_where_room"] = share
        said = "kept" if share <= SHARE_LOST else "MISSED"
        console.print(f"lost to switching where bounds leave room: {share:.1%}; at most {SHARE_LOST:.0%}: {said}")
    late = {name: sum(run.outcome.late for run in runs if run.policy == name) for name in POLICIES}
    late = {name: count for name, count in late.items() if any(run.policy == name for run in runs)}
    found["late"] = late
    said = "kept" if all(late["ours"] <= count for count in late.values()) else "MISSED"
    console.print(f"late batches in sum: {late}: {said}")
    groups = [group for run in ours for group in beyond(run)]
    found |= {"groups_beyond_bound": len(groups), "groups_unsaid": sum(not group.said for group in groups)}
    said = "kept" if not found["groups_unsaid"] else "MISSED"
    console.print(
        f"p99 wait above its bound: {len(groups)} versions' lanes, of which not said before:"
        f" {found['groups_unsaid']}: {said}"
    )
    return found


def main() -> None:
    """Simulate, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, help="CSV: TIMESTAMP, ContextTokens, GeneratedTokens; else synthetic")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--versions", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--loads", type=float, nargs="+", default=list(LOADS))
    parser.add_argument("--engines", type=int, nargs="+", default=list(range(len(ENGINES))), help="by number, from 0")
    parser.add_argument("--policies", nargs="+", choices=list(POLICIES), default=list(POLICIES))
    parser.add_argument("--hours", type=float, default=HOURS)
    parser.add_argument("--awake", type=int, default=1, help="places of the pool")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, default=Path("data/bench-switching.json"))
    given = parser.parse_args()
    console, found = Console(width=190), result.begin(given)
    cells = [Cell(ENGINES[e], n, load) for e, n, load in product(given.engines, given.versions, given.loads)]
    asked = [
        (cell, policy, seed, given.hours, given.awake, given.trace)
        for cell, policy, seed in product(cells, given.policies, given.seeds)
    ]
    with ProcessPoolExecutor(given.processes) as processes:
        runs = list(processes.map(play, asked, chunksize=4))
    found["cells"] = []
    for cell in cells:
        rows = {name: summed([r for r in runs if r.cell == cell and r.policy == name]) for name in given.policies}
        room = "room for the plan's quantum" if cell.has_room else "no room for the plan's quantum"
        title = f"{cell.engine.name} ({cell.engine.switch_seconds:g} s), {cell.versions} versions, load {cell.load:g}"
        show(f"{title}: {room}", rows, console)
        found["cells"].append({"cell": asdict(cell), "has_room": cell.has_room, "policies": rows})
    sums = {name: summed([run for run in runs if run.policy == name]) for name in given.policies}
    show("all cells", sums, console)
    found["all"] = sums
    found["wall_seconds"] = {
        name: round(sum(run.took_seconds for run in runs if run.policy == name), 1) for name in given.policies
    }
    if "ours" in given.policies:
        found["targets"] = judge(runs, console)
    found["source"] = trace.of(given.trace).source
    result.write(given.json, found)
    console.print(f"written to {given.json}; the engines, their switches and the clock are simulated")


if __name__ == "__main__":
    stop.orderly(main)
