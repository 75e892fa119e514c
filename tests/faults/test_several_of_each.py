"""F13: three keepers, three io workers and three gpu workers on one platform come to the same result as one of each."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from faults.house import House
from faults.load import Load, check

pytestmark = pytest.mark.timeout(300)

BATCHES = 6
LINES = 200


@pytest.mark.slow
def test_three_of_each_do_everything_once(
    build: Callable[..., House], tmp_path_factory: pytest.TempPathFactory
) -> None:
    journal = tmp_path_factory.mktemp("journal") / "asked"
    house = build(
        keepers=3,
        ios=3,
        gpus=3,
        engine_arguments=[f"--journal={journal}", "--latency-ms=150", "--jitter=0.9", "--max-num-seqs=16"],
        tick_seconds="0.2",  # keepers that meet each other often,
        hint_again_seconds="0.5",  # and many hints for the same work
        poll_seconds="0.5",
        flush_seconds="0.2",
        slice_lines="20",
    )
    began = time.monotonic()
    loads = [Load.submit(house, f"several-{number}", LINES) for number in range(BATCHES)]
    for load in loads:
        load.has_each_answer_once(house, 120)
    print(f"{BATCHES} batches of {LINES} lines: {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < 60
    for load in loads:
        assert not load.asked_again(journal)
    kinds = house.rows(
        "select batch, kind, count(*) filter (where closed_as = 'settled'), count(*) from leases"
        " where kind <> 'slice' group by 1, 2"
    )
    assert len(kinds) == 2 * BATCHES
    assert all((settled, every) == (1, 1) for _, _, settled, every in kinds), kinds
    slices = house.rows("select slice, count(*) from leases where kind = 'slice' and closed_as = 'settled' group by 1")
    assert len(slices) == house.ask("select count(*) from slices") >= BATCHES * LINES // 20  # the last are smaller
    assert all(count == 1 for _, count in slices)
    workers = house.ask("select count(distinct holder) from leases where kind = 'slice'")
    assert workers == 3
    assert house.ask("select count(*) from files where purpose = 'batch_output'") == BATCHES
    check(house)
