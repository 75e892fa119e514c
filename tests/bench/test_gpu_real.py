"""`make bench-gpu` as it is called, on vLLM without a GPU: all parts, all rows, over calls of which one is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench import descendants, stop
from bench.gpu.__main__ import PARTS
from bench.gpu.course import Status
from bench.test_stop import TESTS, until

_MOST_CALLS = 4


def begun(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bench.gpu", "--shape", "tiny", "--minutes", "10", "--out", str(folder)]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(TESTS)})


def found(folder: Path) -> dict[str, Any]:
    file = folder / "bench-gpu.json"
    return json.loads(file.read_text()) if file.exists() else {"parts": {}, "rows": {}}


@pytest.mark.vllm
@pytest.mark.engines
@pytest.mark.timeout(2_700)
def test_calls_go_on_where_one_was_killed_until_every_row_is_there_and_leave_no_process(short_dir: Path) -> None:
    folder = short_dir / "gpu"
    first = begun(folder)
    with descendants.of(first.pid) as seen:
        until(lambda: (folder / "b.log").exists() and seen.named("bench.run_batch_server"), seconds=600)
        first.terminate()
        assert first.wait(120) == stop.STOPPED
        assert seen.left() == []
    assert found(folder)["parts"]["a"]["status"] == Status.DONE
    for _ in range(_MOST_CALLS):
        call = begun(folder)
        with descendants.of(call.pid) as seen:
            assert call.wait(660) == 0
            assert seen.left() == []
        if all(part["status"] == Status.DONE for part in found(folder)["parts"].values()):
            break
    wanted = {part.name for part in PARTS} - {"b-small"}
    assert {name: part["status"] for name, part in found(folder)["parts"].items()} == dict.fromkeys(wanted, "done")
    rows = [row for part in found(folder)["rows"].values() for row in part]
    assert [row for row in rows if row["ours"] is None and not row["excuse"]] == []
    assert len(rows) == 9 + 3 + 1 + 2 + 1 + 3 + 1
