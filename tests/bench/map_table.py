"""`make bench-map`: a large CSV and a large Parquet file through `penstock map`, simulated engine, killed on the way.

The CSV goes to a server and the command alone is killed (SIGKILL) once two fifths are answered; the Parquet file is
answered by a platform of the command's own, and its whole process group is killed there. The same command is then given
again. Every cell of what comes out is compared with what must be there. Ends with 1 if one differs.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from e2e.live import PENSTOCK, up

from penstock_worker.engine.echo.schema_answers import fitting

SCHEMA = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["good", "bad", "so-so"]},
        "score": {"type": "integer", "minimum": 1, "maximum": 5},
        "share": {"type": "number"},
        "about": {"type": "string"},
    },
    "required": ["mood", "score", "share", "about"],
}
NAMES = ["id", "first name", "text"]
PROMPT = "{{ row['first name'] }}: {{ text }}"
KILLED_AT = 0.4
_ANSWERED = re.compile(r"([\d,]+) answered")


@dataclass
class Round:
    """One table: how long both calls took, and how much memory the command had at most."""

    name: str
    killed_at_rows: int
    first_seconds: float
    second_seconds: float
    most_mib: float


def text(number: int) -> str:
    """A row's text, with all that makes CSV hard."""
    return f'review {number}, "quoted"\nsecond line; ü' if number % 3 else f"review {number}"


def wanted(number: int) -> list[Any]:
    """What a row must be."""
    said = json.loads(fitting(SCHEMA, f"Bo {number}: {text(number)}"))
    return [number, f"Bo {number}", text(number), *said.values(), None]


def killed_and_again(command: list[str], folder: Path, rows: int, environment: Mapping[str, str], group: bool) -> Round:
    """Give the command, kill it at two fifths, give it again."""
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    answered = 0
    assert process.stderr is not None
    for line in process.stderr:
        found = _ANSWERED.search(line)
        answered = int(found[1].replace(",", "")) if found else answered
        if answered >= KILLED_AT * rows:
            break
    (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
    process.communicate()
    print(f"[bench] killed with {answered:,} rows answered", flush=True)
    middle = time.monotonic()
    again = subprocess.Popen(command, cwd=folder, env=environment)
    _, status, used = os.wait4(again.pid, 0)
    again.returncode = os.waitstatus_to_exitcode(status)
    assert again.returncode == 0, f"it ended with {again.returncode}"
    ended = time.monotonic()
    return Round(command[2], answered, middle - began, ended - middle, used.ru_maxrss / 1024)


def main() -> None:
    """Measure, check and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pm-"))
    try:
        sys.exit(_all(folder, given.rows))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _all(folder: Path, rows: int) -> int:
    with (folder / "t.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([NAMES, *([n, f"Bo {n}", text(n)] for n in range(rows))])
    columns = [pa.array(range(rows), pa.int32()), [f"Bo {n}" for n in range(rows)], [text(n) for n in range(rows)]]
    pq.write_table(pa.table(columns, NAMES), folder / "t.parquet", row_group_size=7_000)
    (folder / "s.json").write_text(json.dumps(SCHEMA))
    asked = ["--prompt", PROMPT, "--schema", "s.json", "--model", "tiny", "--batch-lines", str(max(1, rows // 4))]
    with up(folder / "server", "--engine=echo", ready_seconds=900) as platform:
        server = ["--server", platform.url, "--data", str(platform.data)]
        command = [PENSTOCK, "map", "t.csv", *asked, *server, "-o", "o.csv"]
        first = killed_and_again(command, folder, rows, platform.environment, group=False)
        batches = len(list(platform.sdk.batches.list(limit=100)))
        environment = platform.environment
    command = [PENSTOCK, "map", "t.parquet", *asked, "--engine", "echo", "--data", "own", "-o", "o.parquet"]
    second = killed_and_again(command, folder, rows, environment, group=True)
    with (folder / "o.csv").open(newline="") as file:
        lines = csv.reader(file)
        header = next(lines)
        texts = ([int(a), b, c, d, int(e), float(f), *rest[:-1], rest[-1] or None] for a, b, c, d, e, f, *rest in lines)
        bad = {"csv": differing(texts, rows)}
    out = pq.read_table(folder / "o.parquet")
    bad["parquet"] = differing((list(row.values()) for row in out.to_pylist()), rows)
    names = [*NAMES, *SCHEMA["properties"], "error"]
    right = header == out.column_names == names and out.schema.field("id").type == pa.int32() and batches == 4
    for one in (first, second):
        print(
            f"[bench] {one.name}: {rows:,} rows; killed with {one.killed_at_rows:,} answered after "
            f"{one.first_seconds:.1f} s, the rest {one.second_seconds:.1f} s; at most {one.most_mib:.0f} MiB"
        )
    print(
        f"[bench] rows that differ: {bad}; columns, types and the number of batches are {'right' if right else 'WRONG'}"
    )
    return int(any(bad.values()) or not right)


def differing(found: Iterator[list[Any]], rows: int) -> int:
    """How many rows are not what they must be, missing and surplus ones among them."""
    return sum(one != want for one, want in zip_longest(found, (wanted(n) for n in range(rows))))


if __name__ == "__main__":
    main()
