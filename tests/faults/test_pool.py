"""A pool's host: two versions take turns on one place, and nothing is lost, doubled or left over, whoever dies.

Each echo engine journals what it was asked, so that what was asked again is known line by line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.house import POOL, House
from faults.load import Load, check

from penstock.domain.pools.pool import ResidentState
from penstock.service.pools import pools

pytestmark = pytest.mark.timeout(300)

LATENCY_SECONDS = 0.1


@pytest.fixture(scope="module")
def house(build: Callable[..., House], journal: Path) -> House:
    """One host with one place for two versions."""
    arguments = [f"--journal={journal}", "--max-num-seqs=8", f"--latency-ms={LATENCY_SECONDS * 1000:g}"]
    return build(
        gpus=0,
        hosts=1,
        members={"left": arguments, "right": arguments},
        terms={"awake": 1, "linger_seconds": 0.0, "least_quantum_seconds": 1.0},
        wait=False,
        lease_seconds="3",
        beat_seconds="0.5",
        tick_seconds="0.5",
        worker_gone_seconds="4",
        flush_seconds="0.2",
        slice_lines="10",
        close_grace_seconds="1",
        pool_look_seconds="0.1",
    )


@pytest.fixture(autouse=True)
def unbroken(house: House) -> Iterator[None]:
    """Whatever died, the database and the blobs are as they must be."""
    yield
    check(house)


def decisions(house: House) -> list[tuple[Any, ...]]:
    """Who left and who came, and how that ended, oldest first."""
    return house.rows("select leaves, comes, state, error from pool_decisions order by id")


def awake(house: House) -> list[str]:
    """The versions that are awake, as the host says."""
    rows = house.rows("select queue from pool_residents where state = %s order by queue", ResidentState.AWAKE)
    return [queue for (queue,) in rows]


def test_each_version_has_its_turn_and_every_line_its_answer(house: House, journal: Path) -> None:
    loads = [Load.submit(house, f"turn-{model}", 60, model=model) for model in ("left", "right")]
    for load in loads:
        load.has_each_answer_once(house)
        assert not load.asked_again(journal)
    assert [row[2] for row in decisions(house)] == ["done", "done"]
