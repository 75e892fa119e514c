"""One `penstock up` with the simulated engine for the whole room, with short leases, so that deaths are seen soon.

With PENSTOCK_TEST_WITHOUT_REDIS=1 the whole room is tested on a platform that has no Redis.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.live import Platform, up

WITHOUT_REDIS = bool(os.environ.get("PENSTOCK_TEST_WITHOUT_REDIS"))


@pytest.fixture(scope="package")  # it ends with the room: its looks and beats cost the other rooms' tests
def platform(short_dir: Path) -> Iterator[Platform]:
    """A platform that answers with the echo engine."""
    with up(
        short_dir / "e2e",
        "--engine=echo",
        *(["--no-redis"] if WITHOUT_REDIS else []),
        cache_timeout_seconds="10",  # on a busy machine a cache that is there may take longer than its usual 0.1 s
        lease_seconds="5",
        beat_seconds="1",
        close_grace_seconds="1",
        slice_lines="512",  # several slices of a file of some thousands of lines
        worker_gone_seconds="6",
        hint_again_seconds="2",
        poll_seconds="0.5" if WITHOUT_REDIS else "3",
    ) as platform:
        yield platform
