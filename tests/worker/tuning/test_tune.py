"""`penstock tune` on the echo engine, from command line to what is printed, written and kept; then the real vLLM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.domain.models.version import Definition
from penstock.service.core.transaction import Database
from penstock.service.models import versions
from penstock.settings import Settings
from penstock.store.engine import sync_engine

PENSTOCK = str(Path(sys.executable).with_name("penstock"))


def environment(folder: Path, database_url: str) -> dict[str, str]:
    return {
        **os.environ,
        "PENSTOCK_DATABASE_URL": database_url,
        "PENSTOCK_RUNTIME_DIR": str(folder / "r"),
        "PENSTOCK_LOG_DIR": str(folder / "l"),
    }


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """The database for a test's own hands."""
    database = Database(sync_engine(database_url, connections=2), lambda hints: None)
    yield database
    database.close()


def test_a_planted_bad_default_is_found_told_written_and_kept(
    short_dir: Path, tmp_path: Path, database_url: str, db: Database
) -> None:
    slow = ["--engine-arg=--max-num-seqs=2", "--engine-arg=--latency-ms=25", "--engine-arg=--enable-sleep-mode"]
    given = ["tune", "tiny", "--engine", "echo", *slow, "--grid=max-num-seqs=16", "--grid=no-such-flag=1"]
    done = subprocess.run(
        [PENSTOCK, *given, "--lines=24", "--output", str(tmp_path / "out.json"), "--json"],
        env=environment(short_dir / "tune", database_url), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert json.loads((tmp_path / "out.json").read_text()) == found
    base, better, broken = found["points"]
    assert better["chosen"]
    assert better["arguments"] == ["--latency-ms=25", "--enable-sleep-mode", "--max-num-seqs=16"]
    assert found["paired"]["low"] > 1.2
    assert base["kv_tokens"] == 65_536
    assert base["load_seconds"] > 0
    assert 0 < base["wake_seconds"] < base["load_seconds"]
    assert base["memory_bytes"] > 1_000_000
    assert "no-such-flag" in broken["trouble"]
    assert broken["tokens_per_second"] is None
    assert found["command"].endswith("--engine-arg=--enable-sleep-mode --engine-arg=--max-num-seqs=16")
    assert "Kept in the database" in done.stderr
    definition = Definition("tiny", "echo", tuple(better["arguments"]))
    made = db.run(versions.add, "tiny", definition)
    kept = db.run(versions.view, made.name, Settings()).tunings
    assert [one.tokens_per_second for one in kept] == [better["tokens_per_second"]]


@pytest.mark.slow
def test_ctrl_c_ends_the_engine_and_prints_what_there_is(short_dir: Path, tmp_path: Path) -> None:
    given = [
        "tune",
        "tiny",
        "--engine",
        "echo",
        "--engine-arg=--latency-ms=20",
        "--grid=max-num-seqs=1",
        "--lines=200",
    ]
    folder = short_dir / "cut"
    with subprocess.Popen(
        [PENSTOCK, *given, "--output", str(tmp_path / "out.json")],
        env=environment(folder, "postgresql://nobody@127.0.0.1:1/none"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr
        assert process.stdout
        said = next(line for line in process.stderr if line.startswith("1. "))
        process.send_signal(signal.SIGINT)
        err, out = process.stderr.read(), process.stdout.read()
    assert "tokens/s" in said
    assert process.returncode == 130
    assert "interrupted" in out
    assert "Not kept in the database: the database is away" in err
    written: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    assert len(written["points"]) == 1
    records = list(folder.rglob("engine.json"))
    assert records == []  # of processes that are left


@pytest.mark.engines
@pytest.mark.timeout(3_600)
def test_the_real_vllm_with_a_planted_bad_default_becomes_a_fifth_faster_at_least(
    tiny_model: Path, short_dir: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [PENSTOCK, "tune", f"tiny={tiny_model}", "--engine-arg=--dtype=float32", "--engine-arg=--max-num-seqs=4",
         "--grid=max-num-seqs=32", "--lines=64", "--output", str(tmp_path / "out.json"), "--json"],
        env=environment(short_dir / "v", "postgresql://nobody@127.0.0.1:1/none"),
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout)
    print(json.dumps(found, indent=2))
    assert done.returncode == 0
    assert found["paired"]["ratio"] >= 1.2
    assert found["paired"]["low"] > 1
    assert found["points"][0]["kv_tokens"] > 0
    assert "--max-num-seqs=4" not in found["command"]
