"""`make bench-lines`: how long a page of a batch's lines takes, of a million with 40,000 failures in four groups.

Uploaded, validated and assembled by a real platform; answers are recorded as a worker records them, slice by slice,
without an engine (`--engine`: by a worker on the simulated one, which takes longer). Pages are asked over HTTP while
the batch runs and once it has ended: of failed lines, of each group, of all lines, with requests and responses beside
them, by custom_id, and the groups. It judges that groups and pages are right to the line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from bench import result, stop
from e2e.live import ENDED, PENSTOCK, Platform, up
from rich.console import Console
from rich.table import Table
from store.world import World

from penstock.blobs.store import Blobs
from penstock.domain.work.lane import LANES
from penstock.formats import output, plan
from penstock.service.core.ids import blob_key
from penstock.service.lifecycle import work
from penstock.settings import Settings
from penstock.stack import postgres

FAILING: Final = {400: 34, 422: 120, 413: 300, 404: 10_000}
"""Each so many lines one fails with this status, unless it fails with one before."""
TARGET_MS: Final = 300
MODEL: Final = "quiet"
"""Which no worker serves."""
FILLER: Final = "water runs through the gate and turns the wheel, " * 6
PIECE: Final = 1 << 20


def status_of(number: int) -> int | None:
    """How a line will fail; None: it will be answered."""
    return next((status for status, each in reversed(FAILING.items()) if number % each == each // 2), None)


def write_lines(path: Path, count: int, model: str) -> Counter[int]:
    """The input; how many lines fail with each status."""
    failing: Counter[int] = Counter()
    with path.open("wb") as file:
        for number in range(1, count + 1):
            status = status_of(number)
            said = f"{number}: {FILLER}"
            if status is not None:
                failing[status] += 1
                said += f"[[status {status}]]"
            body = {"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": said}]}
            line = {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line).encode() + b"\n")
    return failing


def asked(platform: Platform, path: str, **params: Any) -> tuple[dict[str, Any], float, int]:
    """An answer, its milliseconds and its bytes."""
    began = time.perf_counter()
    answer = platform.http.get(path, params=params)
    took = (time.perf_counter() - began) * 1_000
    return dict(answer.raise_for_status().json()), took, len(answer.content)


def timed(platform: Platform, repeats: int, name: str, path: str, **params: Any) -> dict[str, Any]:
    """The same page again and again."""
    found, first, size = asked(platform, path, **params)
    took = [asked(platform, path, **params)[1] for _ in range(repeats)]
    row = {
        "page": name,
        "first_ms": round(first, 1),
        "median_ms": round(statistics.median(took), 1),
        "max_ms": round(max(took), 1),
        "lines": len(found["data"]),
        "kib": round(size / 1024, 1),
    }
    print(f"[bench] {json.dumps(row)}", flush=True)
    return row


def pages(platform: Platform, batch: str, count: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Every kind of page, from the beginning and from the middle."""
    path = f"/batches/{batch}/lines"
    yield timed(platform, repeats, "groups", f"/batches/{batch}/errors")
    yield timed(platform, repeats, "failed", path, state="failed")
    yield timed(platform, repeats, "failed, from the middle", path, state="failed", after=count // 2)
    for status in FAILING:
        yield timed(platform, repeats, f"status {status}", path, status_code=status)
    yield timed(platform, repeats, "failed, with texts", path, state="failed", include="request,response")
    yield timed(platform, repeats, "answered", path, state="answered")
    yield timed(platform, repeats, "all, 1,000 lines", path, limit=1_000, after=count // 2)
    yield timed(platform, repeats, "one custom_id", path, custom_id=f"line-{count - 7}")


def check(platform: Platform, batch: str, failing: Counter[int], count: int) -> list[str]:
    """What is not right to the line."""
    wrong = []
    groups = {one["status_code"]: one["count"] for one in asked(platform, f"/batches/{batch}/errors")[0]["data"]}
    if groups != dict(failing):
        wrong.append(f"groups: {groups}, not {dict(failing)}")
    for status in FAILING:
        seen, after = list[int](), "0"
        while True:
            page, _, _ = asked(platform, f"/batches/{batch}/lines", status_code=status, limit=1_000, after=after)
            seen += [one["line"] for one in page["data"]]
            if not page["has_more"]:
                break
            after = page["next_after"]
        right = [number for number in range(1, count + 1) if status_of(number) == status]
        if seen != right:
            wrong.append(f"pages of status {status}: {len(seen):,} lines, not {len(right):,}, or others")
    return wrong


def record(platform: Platform, batch: str, until: float) -> None:
    """Answer the lines of a batch as a worker does, until this share of them is recorded."""
    settings = Settings()
    blobs = Blobs(f"file://{platform.data / 'blobs'}")
    with closing(World(postgres.url(platform.runtime / "postgres"), settings)) as world:
        worker = world.worker(MODEL)
        total = world.find(batch).total
        while world.one("select sum(completed + failed) from slices where batch = :id", id=batch) < total * until:
            claim = world.claim(worker, *LANES)
            if claim is None:
                return
            data = blobs.range(claim.plan_key or "", claim.plan_offset, claim.plan_bytes)
            records = [
                output.answered(batch, number, f"line-{number}", *answer(number)) for number, _ in plan.unframe(data)
            ]
            key = blob_key("default", "segments")
            world.db.run(work.intend, key)
            one = work.SliceAnswers(claim, 1, records, key)
            blobs.put(key, one.framed)
            assert not world.db.run(work.record, [one], [claim])


def answer(number: int) -> tuple[int, str, bytes]:
    """Status, request and body of a line's answer."""
    if (status := status_of(number)) is not None:
        said = {"message": f"line {number} can't be answered", "type": f"Error{status}", "code": status}
        return status, "r", json.dumps({"error": said}).encode()
    choices = [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"{number}: {FILLER}"}}
    ]
    usage = {"prompt_tokens": 90, "completion_tokens": 8, "total_tokens": 98}
    return 200, "r", json.dumps({"id": "c", "model": MODEL, "choices": choices, "usage": usage}).encode()


def measure(platform: Platform, count: int, folder: Path, engine: bool, repeats: int) -> dict[str, Any]:
    """One batch: pages while it runs, its end, and pages after it."""
    if not engine:
        subprocess.run(
            [PENSTOCK, "models", "add", MODEL, "--data", str(platform.data)], check=True, env=platform.environment
        )
    failing = write_lines(folder / "in.jsonl", count, "tiny" if engine else MODEL)
    with (folder / "in.jsonl").open("rb") as file:
        uploaded = platform.sdk.files.create(file=file, purpose="batch", timeout=600)
    made = platform.sdk.batches.create(
        input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    running: list[dict[str, Any]] = []
    batch = made
    while batch.status not in ENDED:
        time.sleep(1.0)
        batch = platform.sdk.batches.retrieve(made.id)
        if batch.status == "in_progress" and not engine:
            record(platform, made.id, 1.0 if running else 0.8)
        if not running and batch.status == "in_progress":
            counts = platform.sdk.batches.retrieve(made.id).request_counts
            if counts and counts.completed + counts.failed >= counts.total * 0.8:
                running = list(pages(platform, made.id, count, repeats))
    assert batch.status == "completed", batch
    assert batch.in_progress_at
    assert batch.finalizing_at
    assert batch.completed_at
    ended = list(pages(platform, made.id, count, repeats))
    sizes = platform.rows(
        "select f.purpose, f.bytes, f.index_key from files f where f.index_key is not null order by f.created_at, f.id"
    )
    blobs = platform.data / "blobs"
    return {
        "lines": count,
        "failed": sum(failing.values()),
        "validate_seconds": batch.in_progress_at - batch.created_at,
        "generate_seconds": batch.finalizing_at - batch.in_progress_at,
        "assemble_seconds": batch.completed_at - batch.finalizing_at,
        "indexes": [
            {"of": purpose, "file_mib": round(size / PIECE, 1), "mib": round((blobs / key).stat().st_size / PIECE, 2)}
            for purpose, size, key in sizes
        ],
        "running": running,
        "ended": ended,
        "wrong": check(platform, made.id, failing, count),
    }


def main() -> None:
    """Measure, print and write what came out; 1 if a line is not where it belongs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=30, help="of each page")
    parser.add_argument("--engine", action="store_true", help="the simulated engine answers")
    parser.add_argument("--json", type=Path, default=Path("data/bench-lines.json"))
    given = parser.parse_args()
    told = result.begin(given)
    folder = Path(tempfile.mkdtemp(prefix="ps-"))
    try:
        settings = {"max_queued_lines": "2000000", "max_queued_tokens": "1000000000", "max_file_lines": "2000000"}
        with up(folder / "d", "--engine=echo", ready_seconds=600, **settings) as platform:
            found = measure(platform, given.lines, folder, given.engine, given.repeats)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result.write(given.json, told | found)
    head = f"{found['lines']:,} lines, {found['failed']:,} failed; a page at most {TARGET_MS} ms"
    for when in ("running", "ended"):
        table = Table(title=f"{head}; {when}")
        for name in ("page", "first ms", "median ms", "max ms", "lines", "KiB"):
            table.add_column(name, justify="left" if name == "page" else "right")
        for row in found[when]:
            table.add_row(*[str(value) for value in row.values()])
        Console(width=120).print(table)
    for wrong in found["wrong"]:
        print(f"[bench] WRONG {wrong}")
    sys.exit(1 if found["wrong"] else 0)


if __name__ == "__main__":
    stop.orderly(main)
