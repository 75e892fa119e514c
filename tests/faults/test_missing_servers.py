"""Each process with each server missing at its start: a line that says so, or work without it; never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psycopg
import pytest

from penstock.stack.ports import free_port

PENSTOCK = str(Path(sys.executable).with_name("penstock"))
PASSWORD = "hunter2hunter2"
DEAD = "127.0.0.1:9"
MISSING = {
    "postgres": {"PENSTOCK_DATABASE_URL": f"postgresql://me:{PASSWORD}@{DEAD}/x"},
    "redis": {"PENSTOCK_REDIS_URL": f"redis://:{PASSWORD}@{DEAD}/0"},
    "bucket": {
        "PENSTOCK_BLOB_URL": "s3://none/prefix",
        "AWS_ENDPOINT": f"http://{DEAD}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": PASSWORD,
        "AWS_REGION": "somewhere",
    },
}


class Four:
    """An API, a keeper, an io worker and a gpu worker with one environment, and what they say."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.port = free_port()
        commands = {
            "api": ["api", "--port", str(self.port)],
            "keeper": ["keeper"],
            "io": ["io"],
            "gpu": ["worker", "--model", "tiny=x", "--engine", "echo"],
        }
        self.said = {name: folder / f"{name}.log" for name in commands}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name, command in commands.items():
            with self.said[name].open("wb") as log:
                self.processes[name] = subprocess.Popen(
                    [PENSTOCK, *command], env={**os.environ, **environment}, stdout=log, stderr=log
                )

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for it while all of them run."""
        end = time.monotonic() + 90
        while not holds():
            assert time.monotonic() < end, f"{what}: {self.words()}"
            assert all(one.poll() is None for one in self.processes.values()), self.words()
            time.sleep(0.05)

    def words(self) -> dict[str, str]:
        return {name: log.read_text() for name, log in self.said.items()}

    def end(self) -> None:
        for one in self.processes.values():
            one.terminate()
        for one in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                one.wait(20)
            one.kill()
            one.wait()


@pytest.fixture
def four(server: str, database_url: str, redis_url: str, short_dir: Path, tmp_path: Path) -> Iterator[Four]:
    environment = {
        "PENSTOCK_DATABASE_URL": database_url,
        "PENSTOCK_REDIS_URL": redis_url,
        "PENSTOCK_BLOB_URL": f"file://{tmp_path}/blobs",
        "PENSTOCK_SCRATCH_DIR": str(tmp_path / "scratch"),
        "PENSTOCK_LOG_DIR": str(tmp_path),
        "PENSTOCK_RUNTIME_DIR": str(short_dir / f"four-{server}"),
        "PENSTOCK_BOOTSTRAP_KEY": "sk-only-for-this-test",
        "PENSTOCK_INGRESS_TOKEN": PASSWORD,
    }
    four = Four(tmp_path, environment | MISSING[server])
    try:
        yield four
    finally:
        four.end()
    for name, words in four.words().items():
        assert "Traceback" not in words, name
        assert PASSWORD not in words, name


@pytest.mark.parametrize("server", ["postgres"])
def test_without_postgres_each_says_so_with_the_cause_and_waits(four: Four) -> None:
    def all_told() -> bool:
        return all("penstock: The database is away (" in words for words in four.words().values())

    four.until(all_told, "each says that the database is away")
    for name, words in four.words().items():
        [line] = [line for line in words.splitlines() if line.startswith("penstock: ")]
        assert "Connection refused" in line, name
        assert line.endswith("It is waited for."), name


@pytest.mark.slow
@pytest.mark.parametrize("server", ["redis", "bucket"])
def test_without_redis_or_a_bucket_all_start_and_the_api_says_what_is_missing(
    four: Four, server: str, database_url: str
) -> None:
    def registered() -> bool:
        with psycopg.connect(database_url) as connection:
            rows = connection.execute("select kind from workers where state = 'ready'").fetchall()
        return {kind for (kind,) in rows} == {"keeper", "io", "gpu"}

    def answers() -> bool:
        try:
            answer = httpx.get(f"http://127.0.0.1:{four.port}/health/ready", timeout=10, trust_env=False)
        except httpx.TransportError:
            return False
        return bool(answer.json()["missing"] == (["blobs"] if server == "bucket" else []))

    four.until(registered, "keeper, io worker and gpu worker are ready")
    four.until(answers, "the API answers")
