"""`make bench-planning`: what an io worker does to a batch before any engine sees it, lines/s and peak memory by size.

Lines of 500 bytes at temperature 0, as files have them: one of fifty system prompts each, every fifth line a copy of an
earlier one, lengths mixed. Spool, scan, order, cut and write are run as an io worker runs them, without a database, on
one core, each time in a new process that has an io worker's code loaded. It measures, and judges one thing: the plan
holds every line once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench import result, stop
from rich.console import Console
from rich.table import Table

ENDPOINT = "/v1/chat/completions"
TARGET_LINES_PER_SECOND, TARGET_MIB = 15_000, 400


def write_lines(path: Path, count: int, seed: int) -> None:
    """The input file."""
    chance = random.Random(seed)
    words = [f"{chance.randrange(10**6):06}" for _ in range(5_000)]
    systems = [" ".join(chance.choices(words, k=40)) for _ in range(50)]
    seen: list[tuple[str, str, int]] = []
    with path.open("wb") as file:
        for number in range(count):
            if seen and number % 5 == 0:
                system, question, most = seen[chance.randrange(len(seen))]
            else:
                system, question = chance.choice(systems), " ".join(chance.choices(words, k=4))
                most = chance.choice((16, 64, 256))
                if len(seen) < 10_000:
                    seen.append((system, question, most))
            messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
            body = {"model": "tiny", "messages": messages, "max_tokens": most, "temperature": 0}
            line = {"custom_id": f"line-{number}", "method": "POST", "url": ENDPOINT, "body": body}
            file.write(json.dumps(line).encode() + b"\n")


def measure(folder: str, count: int, dedup: bool) -> dict[str, Any]:
    """Plan the file in this process; seconds of each step, and the peak of its memory."""
    import penstock_worker.runtime.celery_app  # noqa: F401 - so that memory is an io worker's
    from penstock.blobs.store import Blobs
    from penstock.formats import plan as format
    from penstock.service.planning import plan, validate
    from penstock.service.planning.line_models import LineModels
    from penstock.service.planning.scan import scan
    from penstock.settings import Settings

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    settings, blobs = Settings(scratch_dir=Path(folder)), Blobs(f"file://{folder}/blobs")
    loaded = peak_mib()
    took, busy = {"began": time.perf_counter()}, time.process_time()
    with validate.spooled(blobs, "input", settings.scratch_dir) as path:
        took["spool"] = time.perf_counter()
        found = scan(path, ENDPOINT, {}, LineModels(frozenset({"tiny"})), settings, dedup=dedup)
        took["scan"] = time.perf_counter()
        made = plan.make(found, {name: plan.speed(None, None, settings) for name in found.models}, settings)
        took["order"] = time.perf_counter()
        cuts = plan.write(path, made, blobs, f"plan-{count}-{dedup}")
        took["write"], busy = time.perf_counter(), time.process_time() - busy
    peak = peak_mib()
    assert not found.error_count, found.errors[:3]
    numbers = set()
    for cut in cuts:
        part = blobs.range(f"plan-{count}-{dedup}", cut.plan_offset, cut.plan_bytes)
        numbers |= {number for number, _ in format.unframe(part)}
    assert sum(cut.lines for cut in cuts) == len(numbers) == count, "the plan lacks or doubles a line"
    steps = list(took)
    return {
        "lines": count,
        "dedup": dedup,
        "lines_per_second": round(count / (took["write"] - took["began"])),
        "lines_per_cpu_second": round(count / busy),
        "seconds": {step: round(took[step] - took[steps[at]], 3) for at, step in enumerate(steps[1:])},
        "slices": len(cuts),
        "tokens": sum(cut.tokens for cut in cuts),
        "loaded_mib": loaded,
        "peak_mib": peak,
    }


def peak_mib() -> float:
    """Peak resident memory of this process (VmHWM), in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Measure each size with and without dedup, print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("data/bench-planning.json"))
    given = parser.parse_args()
    told, runs = result.begin(given), []
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    try:
        (folder / "blobs").mkdir()
        for count in given.lines:
            write_lines(folder / "blobs" / "input", count, given.seed)
            bytes_a_line = (folder / "blobs" / "input").stat().st_size / count
            for dedup in (True, False):
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
                    runs.append(fresh.submit(measure, str(folder), count, dedup).result())
                runs[-1]["bytes_per_line"] = round(bytes_a_line)
                print(f"[bench] {json.dumps(runs[-1])}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result.write(given.json, told | {"runs": runs})
    title = f"Validation and planning, one core (targets: {TARGET_LINES_PER_SECOND:,} lines/s, {TARGET_MIB} MiB)"
    table = Table(title=title)
    steps = ("spool s", "scan s", "order s", "write s")
    for name in ("lines", "dedup", "lines/s", "lines/CPU s", *steps, "slices", "peak MiB"):
        table.add_column(name, justify="right")
    for run in runs:
        seconds = [f"{run['seconds'][step]:.2f}" for step in ("spool", "scan", "order", "write")]
        head = [f"{run['lines']:,}", "on" if run["dedup"] else "off", f"{run['lines_per_second']:,}"]
        head.append(f"{run['lines_per_cpu_second']:,}")
        table.add_row(*head, *seconds, str(run["slices"]), f"{run['peak_mib']:.0f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    stop.orderly(main)
