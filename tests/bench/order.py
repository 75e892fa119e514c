"""`make bench-order`: the order of work against first come, first served, in virtual hours; deadlines that are missed.

Simulated, and named so: the workers (fixed tokens a second, one slice at a time each) and the clock. Real: Postgres and
the scheduler's own statements. No batch is expired, so that lateness can be seen. It prints tables and writes JSON.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from bench import order_jobs, result, stop, trace, virtual
from bench.order_jobs import Job
from rich.console import Console
from rich.table import Table

from penstock.domain.work.lane import LANES, Lane
from penstock.settings import Settings

_WORKERS: Final = 2
_RATE: Final = 4_000.0
"""Tokens a second of one worker, where the load follows from the jobs."""


def by_lane(jobs: Sequence[Job], ended: dict[int, float]) -> dict[str, dict[str, float]]:
    """Of each lane: jobs, missed deadlines, p95 and most of the lateness, p50 and p95 of the turnaround."""
    found = {}
    for lane in (*LANES, None):
        of = [job for job in jobs if lane in (job.lane, None)]
        late = [max(0.0, ended[job.number] - job.due) for job in of]
        took = [ended[job.number] - job.at for job in of]
        found[str(lane) if lane else "all"] = {
            "jobs": len(of),
            "missed": sum(seconds > 1e-3 for seconds in late),
            "late_p95_seconds": round(float(np.percentile(late, 95)), 1),
            "latest_seconds": round(max(late), 1),
            "took_p50_seconds": round(float(np.percentile(took, 50)), 1),
            "took_p95_seconds": round(float(np.percentile(took, 95)), 1),
        }
    return found


def hour(url: str, jobs: Sequence[Job], load: float, span: float, console: Console) -> dict[str, Any]:
    """The trace's hour at this load: first come, first served, and ours, with and without promotion."""
    rate = sum(job.tokens for job in jobs) / span / load / _WORKERS
    found: dict[str, Any] = {"load": load, "worker_tokens_per_second": round(rate), "span_seconds": span}
    found["first come"] = by_lane(jobs, order_jobs.first_come(jobs, _WORKERS, rate))
    found["earliest deadline (ideal, preemptive)"] = by_lane(jobs, order_jobs.ideal(jobs, rate * _WORKERS))
    for name, share in (("ours, nothing rises", 0.0), ("ours", 0.2)):
        settings = Settings(promoted_share=share)
        with virtual.Hour(url, settings, workers=_WORKERS, rate=rate) as simulation:
            outcome = simulation.run(jobs)
        found[name] = by_lane(jobs, outcome.ended) | {"claims": outcome.claims, "promoted": outcome.promoted}
    show(found, console)
    return found


def show(found: dict[str, Any], console: Console) -> None:
    """A table of one hour."""
    orders = [name for name, value in found.items() if isinstance(value, dict)]
    table = Table(title=f"One hour at load {found['load']:g}: missed deadlines · p95 lateness · turnaround p50 / p95")
    for column in ("lane", "jobs", *orders):
        table.add_column(column, justify="left" if column == "lane" else "right")
    for lane in (*map(str, LANES), "all"):
        cells = [found[order][lane] for order in orders]
        table.add_row(
            lane,
            str(cells[0]["jobs"]),
            *(
                f"{cell['missed']} · {cell['late_p95_seconds']:,.0f} s · "
                f"{cell['took_p50_seconds']:,.0f} / {cell['took_p95_seconds']:,.0f} s"
                for cell in cells
            ),
        )
    console.print(table)


def thirty(url: str, sets: int, tenants: int, console: Console) -> dict[str, Any]:
    """Sets of 30 jobs with mixed deadlines at 90 % load: how many sets and jobs are in time, by each order."""
    count = {"sets": sets, "jobs": 0, "ideal_sets": 0, "ours_sets_of_those": 0, "ideal": 0, "ours": 0, "first_come": 0}
    worst = 0.0
    for seed in range(sets):
        jobs = order_jobs.mixed(seed, _RATE * _WORKERS, tenants=tenants)
        with virtual.Hour(url, Settings(), workers=_WORKERS, rate=_RATE) as simulation:
            ours = simulation.run(jobs).ended
        ideal = order_jobs.ideal(jobs, _RATE * _WORKERS)
        missed = {
            name: [ended[job.number] - job.due for job in jobs if ended[job.number] > job.due + 1e-3]
            for name, ended in (
                ("ideal", ideal),
                ("ours", ours),
                ("first_come", order_jobs.first_come(jobs, _WORKERS, _RATE)),
            )
        }
        count["jobs"] += len(jobs)
        for name, late in missed.items():
            count[name] += len(late)
        if not missed["ideal"]:
            count["ideal_sets"] += 1
            count["ours_sets_of_those"] += not missed["ours"]
            worst = max([worst, *missed["ours"]])
    console.print(
        f"30 jobs, mixed deadlines, load 0.9, {tenants} tenant(s), {sets} sets: ideal EDF meets all in"
        f" {count['ideal_sets']}, ours in {count['ours_sets_of_those']} of those (latest {worst:.1f} s);"
        f" missed jobs of {count['jobs']}: ideal {count['ideal']}, ours {count['ours']},"
        f" first come {count['first_come']}"
    )
    return {**count, "tenants": tenants, "latest_seconds": round(worst, 1)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, help="CSV: TIMESTAMP, ContextTokens, GeneratedTokens; else synthetic")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sets", type=int, default=20, help="of 30 jobs with mixed deadlines")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.9, 1.2])
    parser.add_argument("--json", type=Path, default=Path("data/bench-order.json"))
    given = parser.parse_args()
    console, found = Console(width=160), result.begin(given)
    rows = trace.of(given.trace)
    jobs = order_jobs.gathered(rows, given.seed)
    console.print(f"{len(jobs)} jobs, {sum(job.tokens for job in jobs):,} tokens; {rows.source}; simulated workers")
    with tempfile.TemporaryDirectory(prefix="ps-") as folder, virtual.server(Path(folder)) as url:
        found["hours"] = [hour(url, jobs, load, jobs[-1].at, console) for load in given.loads]
        found["thirty"] = [thirty(url, given.sets, tenants, console) for tenants in (1, 3)]
    found |= {"source": rows.source, "jobs": len(jobs), "lanes": [str(lane) for lane in Lane]}
    result.write(given.json, found)
    console.print(f"written to {given.json}")


if __name__ == "__main__":
    stop.orderly(main)
