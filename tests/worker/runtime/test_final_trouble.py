"""A worker whose engine can't start ends by itself, with one line, and its row in Postgres keeps why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg


def test_an_argument_that_is_none_ends_the_worker_at_once_and_stays_in_its_row(
    database_url: str, redis_url: str, short_dir: Path, tmp_path: Path
) -> None:
    environment = {
        "PENSTOCK_DATABASE_URL": database_url,
        "PENSTOCK_REDIS_URL": redis_url,
        "PENSTOCK_BLOB_URL": f"file://{tmp_path}/blobs",
        "PENSTOCK_LOG_DIR": str(tmp_path),
        "PENSTOCK_RUNTIME_DIR": str(short_dir / "final"),
    }
    command = [str(Path(sys.executable).with_name("penstock")), "worker", "--model", "tiny=x"]
    done = subprocess.run(
        [*command, "--engine", "echo", "--engine-arg=--no-such-flag"],
        env=os.environ | environment, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    why = "error: unrecognized arguments: --no-such-flag"
    [log] = tmp_path.glob("engine-*.log")
    assert done.returncode == 1
    assert f"penstock worker: The engine does not start: {why} (its log: {log})" in done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    assert log.read_text().count("--- start") == 1
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("select state, failed_starts, engine_trouble from workers").fetchall()
    assert rows == [("starting", 1, why)], "it is seen as gone by its silence, and says why until then"
