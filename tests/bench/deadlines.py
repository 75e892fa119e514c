"""`make bench-deadlines`: 30 jobs with mixed deadlines at 90 % load, in real time, through the whole platform.

Simulated, and named so: the echo engine, whose slots and latency make a known capacity. Jobs come over HTTP while the
earlier ones run; one whose deadline passes expires, as in production. Beside it stands what the ideal preemptive order
(earliest deadline first on one server) and first come, first served would have made of the same jobs.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx
from bench import order_jobs, ours, result, stop
from bench.order_jobs import Job
from rich.console import Console

_SLOTS: Final = 32
_LATENCY_MS: Final = 400
_RATE: Final = _SLOTS * 1000 / _LATENCY_MS
"""Lines a second of the simulated engine."""
_TOKENS: Final = 1_000
"""Of a line, where jobs are drawn by tokens."""
_MINUTE: Final = 60.0


def drawn(seed: int, count: int, load: float, stretch: float) -> list[Job]:
    """Jobs whose deadlines are whole minutes after they come, since that is what a completion_window can say.

    Sizes are multiplied by `stretch`, so that a minute is no longer than the time between some jobs.
    """
    jobs = order_jobs.mixed(seed, _RATE * _TOKENS / stretch, count=count, load=load)
    return [dataclasses.replace(job, window=_MINUTE * max(1, round(job.window / _MINUTE))) for job in jobs]


def lines_of(job: Job, stretch: float) -> int:
    """How many lines the job has."""
    return max(1, round(job.tokens / _TOKENS * stretch))


def send(api: httpx.Client, job: Job, count: int) -> str:
    """Create it over HTTP; its id."""
    said = [[{"role": "user", "content": f"job {job.number} line {n}"}] for n in range(count)]
    wish = {
        "model": "tiny",
        "requests": [{"body": {"messages": messages, "max_tokens": 8}} for messages in said],
        "completion_window": f"{round(job.window / _MINUTE)}m",
        "lane": str(job.lane),
    }
    return str(api.post("/v1/jobs", json=wish).raise_for_status().json()["id"])


def run(platform: ours.Ours, jobs: Sequence[Job], stretch: float, console: Console) -> dict[int, dict[str, Any]]:
    """Send each job at its second; how each ended, and how long after its deadline."""
    headers = {"authorization": f"Bearer {platform.running.key}"}
    found: dict[int, dict[str, Any]] = {}
    with httpx.Client(base_url=platform.running.url, headers=headers, timeout=120, trust_env=False) as api:
        began, waiting = time.monotonic(), []

        def end(job: Job, id: str) -> None:
            while True:
                seen = api.get(f"/v1/jobs/{id}", params={"wait": 30}).raise_for_status().json()
                if seen["status"] in ours.ENDED:
                    took = time.monotonic() - began - job.at
                    found[job.number] = {"status": seen["status"], "took_seconds": round(took, 1), "window": job.window}
                    console.print(f"job {job.number}: {seen['status']} after {took:.1f} of {job.window:.0f} s")
                    return

        for job in jobs:
            time.sleep(max(0.0, began + job.at - time.monotonic()))
            id = send(api, job, lines_of(job, stretch))
            waiting.append(threading.Thread(target=end, args=(job, id)))
            waiting[-1].start()
            platform.running.tend()
        for thread in waiting:
            while thread.is_alive():
                thread.join(1.0)
                platform.running.tend()
    return found


def missed(jobs: Sequence[Job], ended: dict[int, float]) -> list[int]:
    """Jobs that end after their deadlines."""
    return [job.number for job in jobs if ended[job.number] > job.due]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--load", type=float, default=0.9)
    parser.add_argument("--stretch", type=float, default=12.0, help="lines of a job, times this (minutes with it)")
    parser.add_argument("--json", type=Path, default=Path("data/bench-deadlines.json"))
    given = parser.parse_args()
    console, found = Console(width=120), result.begin(given)
    jobs = drawn(given.seed, given.jobs, given.load, given.stretch)
    rate = _RATE * _TOKENS / given.stretch
    console.print(
        f"{len(jobs)} jobs, {sum(lines_of(job, given.stretch) for job in jobs):,} lines in {jobs[-1].at:.0f} s"
    )
    arguments = [f"--latency-ms={_LATENCY_MS}", f"--max-num-seqs={_SLOTS}"]
    with (
        tempfile.TemporaryDirectory(prefix="ps-") as folder,
        ours.platform(
            Path(folder) / "up", engine="echo", arguments=arguments, source=None, say=console.print
        ) as platform,
    ):
        outcome = run(platform, jobs, given.stretch, console)
    late = [number for number, one in outcome.items() if one["status"] != "completed"]
    ideal, plain = missed(jobs, order_jobs.ideal(jobs, rate)), missed(jobs, order_jobs.first_come(jobs, 1, rate))
    console.print(f"missed deadlines: ours {len(late)} {late}, ideal EDF {len(ideal)}, first come {len(plain)}")
    found |= {"rate": _RATE, "jobs": outcome, "missed": {"ours": late, "ideal": ideal, "first_come": plain}}
    result.write(given.json, found)
    console.print(f"written to {given.json}; the engine is simulated")


if __name__ == "__main__":
    stop.orderly(main)
