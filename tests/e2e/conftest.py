"""One `penstock up` with the simulated engine for the whole room, with short leases, so that deaths are seen soon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.live import Platform, up


@pytest.fixture(scope="session")
def platform(short_dir: Path) -> Iterator[Platform]:
    """A platform that answers with the echo engine."""
    with up(
        short_dir / "e2e",
        "--engine=echo",
        lease_seconds="5",
        beat_seconds="1",
        close_grace_seconds="1",
        worker_gone_seconds="6",
        hint_again_seconds="2",
    ) as platform:
        yield platform
