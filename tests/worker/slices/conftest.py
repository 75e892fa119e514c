"""An echo engine that the tests of a module share, and its journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from worker.engines import echo_launch, wait_ready

from penstock_worker.engine.process.supervisor import Supervisor


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the engine was asked."""
    return tmp_path_factory.mktemp("slices") / "journal"


@pytest.fixture(scope="module")
def supervisor(request: pytest.FixtureRequest, short_dir: Path, journal: Path) -> Iterator[Supervisor]:
    """One engine that is ready."""
    folder = short_dir / request.module.__name__.rpartition(".")[2].removeprefix("test_")
    launch = echo_launch(folder, f"--journal={journal}")
    with Supervisor(launch, runtime_dir=folder, log_path=folder / "engine.log") as supervisor:
        wait_ready(supervisor, 30)
        yield supervisor
