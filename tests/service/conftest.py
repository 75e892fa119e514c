"""Fixtures: a world with real files, and small limits that tests can reach."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from service.desk import Desk
from service.eval_desk import EvalDesk
from store.world import World

from penstock.settings import Settings


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Limits that a small file can meet."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Settings(
        database_url=database_url,
        blob_url=f"file://{tmp_path}/blobs",
        scratch_dir=scratch,
        max_file_lines=40,
        max_line_bytes=2_000,
        max_models_per_batch=3,
        max_errors_listed=30,
        slice_lines=4,
        slice_tokens=2_000,
        max_queued_tokens=50_000,
    )


@pytest.fixture
def world(database_url: str, settings: Settings) -> Iterator[World]:
    """A tenant, a known model, no gpu worker."""
    one = World(database_url, settings)
    yield one
    one.check()
    one.close()


@pytest.fixture
def desk(world: World) -> Desk:
    """Where files are validated and assembled."""
    return Desk(world)


@pytest.fixture
def house(desk: Desk) -> EvalDesk:
    """Where answers are scored and compared."""
    return EvalDesk(desk)
