"""Real servers for the tests: one embedded PostgreSQL and one Valkey a session, a fresh database a test."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis as redis_client
from databases import Databases
from xdist.scheduler import LoadFileScheduling

from penstock.stack import postgres, valkey

# What webhook secrets are encrypted with in tests; processes that a test starts with other settings have other keys.
os.environ["PENSTOCK_SECRET_KEYS"] = "dGVzdHMtaGF2ZS1hLWtleS1vZi10aGVpci1vd24tLS0="

# How long an example took, or was drawn, says nothing on a machine that may stall at any moment.
hypothesis.settings.register_profile("penstock", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("penstock")


# What collecting makes stays to the end: the collector of garbage need not go through it again and again.
gc.disable()


def pytest_collection_finish() -> None:
    """The collector of garbage begins here."""
    gc.freeze()
    gc.enable()


_LONGEST_FIRST = ("e2e", "faults", "worker", "stack", "bench", "cli", "service", "store", "api")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Rooms whose files take minutes go first: one that began last would keep one tester alone at the end."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        room = item.path.relative_to(here).parts[0]
        return _LONGEST_FIRST.index(room) if room in _LONGEST_FIRST else len(_LONGEST_FIRST)

    items.sort(key=place)


# Of the end-to-end files: those that do not use the platform that the others share.
_OWN_SERVERS = (
    "test_adapters",
    "test_evals",
    "test_external_servers",
    "test_steering",
    "test_vllm",
    "test_without_redis",
)


class _Scheduling(LoadFileScheduling):
    """A file's tests are one tester's, and so are those of all files that use the end-to-end tests' one platform."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(super()._split_scope(nodeid))
        return "e2e" if file.parent.name == "e2e" and file.stem not in _OWN_SERVERS else str(file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling:
    """Who runs what, with `-n`."""
    return _Scheduling(config, log)


@pytest.fixture(scope="session")
def short_dir() -> Iterator[Path]:
    """A folder with a short path (unix sockets: at most 107 bytes), removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="ps-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder, made once for all testers: it takes ten seconds of a core."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny-model" / "model"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            command = [sys.executable, "-m", "penstock_worker.engine.tiny", str(folder)]
            subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def tiny_gguf(tiny_model: Path) -> Path:
    """The tiny model as llama.cpp reads it, made once for all testers."""
    file = tiny_model.parent / "tiny.gguf"
    with (tiny_model.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "penstock_worker.engine.tiny_gguf", str(tiny_model), str(file)]
        subprocess.run(command, check=True, capture_output=True)
    return file


@pytest.fixture(scope="session")
def postgres_url(short_dir: Path) -> Iterator[str]:
    """One embedded PostgreSQL for the whole session; its maintenance database."""
    with postgres.running(short_dir / "pg", short_dir / "pgs", short_dir / "pg.log", durable=False) as url:
        yield url


@pytest.fixture(scope="session")
def databases(postgres_url: str) -> Databases:
    """The databases of all tests of the session."""
    return Databases(postgres_url)


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A fresh, migrated, empty database."""
    with databases.fresh() as url:
        yield url


@pytest.fixture(scope="module")
def shared_database_url(databases: Databases) -> Iterator[str]:
    """The same for all tests of a module, where starting what works on it costs more than the tests."""
    with databases.fresh() as url:
        yield url


@pytest.fixture
def empty_database_url(databases: Databases) -> Iterator[str]:
    """A fresh database without tables, for tests of the migrations."""
    with databases.without_tables() as url:
        yield url


@pytest.fixture(scope="session")
def valkey_url(short_dir: Path) -> Iterator[str]:
    """One embedded Valkey for the whole session."""
    with valkey.running(short_dir / "valkey", short_dir / "valkey.log") as url:
        yield url


@pytest.fixture
def redis_url(valkey_url: str) -> str:
    """The session's Valkey, emptied."""
    with redis_client.Redis.from_url(valkey_url) as client:
        client.flushall()
    return valkey_url
