"""`make bench-control`: the control plane alone, on the simulated echo engine: batches of each size, and one-line jobs.

Lines/s end to end of one worker, the time of each phase, each process's peak memory and what Postgres grew by: is it
the same for a million lines as for a hundred thousand? And how many `POST /v1/jobs` one API process takes.

Prints a table and writes JSON. It measures, and passes no judgement but one: every line comes back once, in order.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import openai
import psutil
import psycopg
from bench import jobs, result, stop
from bench.processes import cpu_seconds, family
from rich.console import Console
from rich.table import Table

from penstock.stack import layout, ports, postgres
from penstock.stack import up as stack

ENDED = ("completed", "failed", "expired", "cancelled")


def write_lines(path: Path, count: int, model: str = "tiny") -> None:
    """Chat requests of about 500 bytes each."""
    filler = "water runs through the gate and turns the wheel, " * 6
    with path.open("wb") as file:
        for number in range(count):
            body = {
                "model": model,
                "max_tokens": 16,
                "temperature": 0,
                "messages": [{"role": "user", "content": f"{number}: {filler}"}],
            }
            line = {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line).encode() + b"\n")


def processes(running: stack.Running) -> Iterator[tuple[str, psutil.Process]]:
    """Each child of `up` and each of its descendants, named by child and program."""
    for child in running.children:
        if child.pid is not None:
            for process in family(child.pid):
                with suppress(psutil.NoSuchProcess):
                    yield child.name if process.pid == child.pid else f"{child.name}: {process.name()}", process


def peak_mib(running: stack.Running) -> dict[str, float]:
    """Peak resident memory (VmHWM), in MiB: of processes with one name the largest."""
    peaks: dict[str, float] = {}
    for name, process in processes(running):
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:  # it ended meanwhile
            continue
        peak = next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)
        peaks[name] = max(peaks.get(name, 0.0), round(peak, 1))
    return peaks


def cpu_by_name(running: stack.Running) -> Counter[str]:
    """Processor time so far: of processes with one name all together."""
    seconds: Counter[str] = Counter()
    for name, process in processes(running):
        seconds[name] += cpu_seconds(process)
    return seconds


class Database:
    """A look at the platform's database, beside it."""

    def __init__(self, running: stack.Running) -> None:
        sockets = layout.runtime_folder(running.layout, os.environ) / "postgres"
        self._conn = psycopg.connect(postgres.url(sockets), autocommit=True)

    def mib(self) -> float:
        """What it takes on disk, without its log."""
        [(size,)] = self._conn.execute("select pg_database_size(current_database())").fetchall()
        return size / 1024 / 1024

    def jobs_left(self) -> int:
        """Jobs that have not ended."""
        [(left,)] = self._conn.execute(
            "select count(*) from batches where kind = 'job' and state in ('in_progress', 'finalizing')"
        ).fetchall()
        return int(left)


def measure(running: stack.Running, count: int, folder: Path, model: str = "tiny") -> dict[str, object]:
    """Send one batch through and take its times; raise if a line is missing, doubled or out of order."""
    path = folder / "input.jsonl"
    write_lines(path, count, model)
    client = openai.OpenAI(base_url=f"{running.url}/v1", api_key=running.key, timeout=120)
    began = time.monotonic()
    with path.open("rb") as file:
        uploaded = client.files.create(file=file, purpose="batch")
    upload_seconds = time.monotonic() - began
    batch = client.batches.create(input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h")
    while batch.status not in ENDED:
        running.tend()
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
    seconds = time.monotonic() - began - upload_seconds
    assert batch.status == "completed", batch
    assert batch.output_file_id is not None, batch
    answered = [json.loads(line)["custom_id"] for line in client.files.content(batch.output_file_id).iter_lines()]
    assert answered == [f"line-{number}" for number in range(count)], "a line is missing, doubled or out of order"
    assert batch.in_progress_at is not None
    assert batch.finalizing_at is not None
    assert batch.completed_at is not None
    return {
        "lines": count,
        "upload_seconds": round(upload_seconds, 2),
        "seconds": round(seconds, 2),
        "lines_per_second": round(count / seconds, 1),
        "validate_seconds": batch.in_progress_at - batch.created_at,
        "generate_seconds": batch.finalizing_at - batch.in_progress_at,
        "assemble_seconds": batch.completed_at - batch.finalizing_at,
    }


def main() -> None:
    """Measure each size on one platform, print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, nargs="+", default=[50_000])
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--json", type=Path, default=Path("data/bench-control.json"))
    given = parser.parse_args()
    head = result.begin(given) | {"engine": "echo (simulated)"}
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
    wish = stack.StackOptions(data=folder / "data", port=ports.preferred_port(8000), engine="echo")
    try:
        with stack.platform(wish, os.environ, lambda words: print(f"[bench] {words}", flush=True)) as running:
            runs, database = [], Database(running)
            for count in given.lines:
                size = database.mib()
                run = measure(running, count, folder)
                grown = round(database.mib() - size, 1)
                runs.append(run | {"postgres_mib": grown, "peak_mib": peak_mib(running)})
                print(f"[bench] {json.dumps(runs[-1])}", flush=True)
                result.write(given.json, head | {"runs": runs})  # the next one is longer, and may be cut off
            before = cpu_by_name(running)
            posted = jobs.measure(running.url, running.key, given.jobs, database.jobs_left, model="tiny")
            busy = cpu_by_name(running) - before
            cpu = {name: round(1000 * seconds / given.jobs, 2) for name, seconds in busy.most_common()}
            print(f"[bench] {json.dumps(posted | {'cpu_ms_per_job': cpu})}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result.write(given.json, head | {"runs": runs, "jobs": posted | {"cpu_ms_per_job": cpu}})
    Console().print(result.told(head))
    table = Table(title="Control plane on the echo engine (simulated)")
    for name in ("lines", "lines/s", "upload s", "validate s", "generate s", "assemble s", "Postgres MiB"):
        table.add_column(name, justify="right")
    keys = ("lines", "lines_per_second", "upload_seconds", "validate_seconds", "generate_seconds", "assemble_seconds")
    keys += ("postgres_mib",)
    for run in runs:
        table.add_row(*(str(run[key]) for key in keys))
    Console().print(table)
    peaks = Table(title="Peak memory of each process after each run, MiB")
    peaks.add_column("process")
    for run in runs:
        peaks.add_column(f"{run['lines']:,} lines", justify="right")
    for name in sorted(runs[-1]["peak_mib"]):  # type: ignore[call-overload]
        peaks.add_row(name, *(f"{run['peak_mib'].get(name, 0):.0f}" for run in runs))  # type: ignore[attr-defined]
    Console().print(peaks)
    posts = Table(title=f"One-line jobs by POST /v1/jobs, {posted['callers']} callers, one API process")
    for name in ("jobs", "posts/s", "p50 ms", "p99 ms", "answered lines/s"):
        posts.add_column(name, justify="right")
    shown = ("jobs", "posts_per_second", "post_p50_ms", "post_p99_ms", "lines_per_second")
    posts.add_row(*(str(posted[key]) for key in shown))
    Console().print(posts)
    shares = Table(title="Processor time of a job, ms")
    for name in ("process", "ms"):
        shares.add_column(name, justify="right" if name == "ms" else "left")
    for name, ms in cpu.items():
        shares.add_row(name, str(ms))
    Console().print(shares)


if __name__ == "__main__":
    stop.orderly(main)
