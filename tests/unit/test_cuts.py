"""Cuts of a plan into slices: some seconds of work each, whole prompts where that is near, smaller at the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.fleet.model import ModelFacts
from penstock.domain.fleet.worker import WorkerPace
from penstock.service.planning.plan import Speed, cut, speed
from penstock.settings import Settings

SETTINGS = Settings(slice_seconds=20.0, slice_tokens=60_000, slice_lines=40, slice_bytes=10_000)


def sizes(
    tokens: Sequence[int], speed: Speed, shares: Sequence[int] | None = None, lengths: Sequence[int] | None = None
) -> list[int]:
    ends = list(
        cut(
            np.array(tokens, dtype=np.uint32),
            np.array(lengths or [1] * len(tokens), dtype=np.uint32),
            np.array(shares or [0] * len(tokens), dtype=np.uint8),
            speed,
            SETTINGS,
        )
    )
    return [end - begin for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


@given(
    st.lists(st.tuples(st.integers(1, 900), st.integers(1, 12_000), st.integers(0, 3)), min_size=1, max_size=150),
    st.integers(1, 4),
    st.integers(1, 20),
)
def test_every_line_is_in_one_slice_and_every_slice_keeps_the_bounds(lines: list, workers: int, least: int) -> None:
    tokens, lengths, shares = zip(*lines, strict=True)
    found = sizes(tokens, Speed(2_000, workers, least_lines=least), shares, lengths)
    assert sum(found) == len(lines)
    begin = 0
    for size in found:
        end = begin + size
        assert 1 <= size <= SETTINGS.slice_lines
        assert size == 1 or sum(lengths[begin:end]) <= SETTINGS.slice_bytes
        assert size <= max(1, least) or sum(tokens[begin:end]) <= 2_000
        begin = end


def test_a_slice_is_as_much_as_a_worker_does_in_its_seconds() -> None:
    assert speed(WorkerPace(1, 1_000.0, 128), None, SETTINGS).slice_tokens == 20_000
    assert speed(WorkerPace(1, 1_000.0, 128), ModelFacts(tokens_scale=0.5), SETTINGS).slice_tokens == 40_000


def test_where_nothing_is_measured_the_setting_says() -> None:
    assert speed(None, None, SETTINGS) == speed(None, ModelFacts(tokens_scale=0.5), SETTINGS)
    assert speed(None, None, SETTINGS).slice_tokens == 60_000
    assert speed(WorkerPace(2, None, 256), None, SETTINGS).slice_tokens == 60_000


def test_a_slow_engine_gets_lines_enough_to_fill_it() -> None:
    slow = speed(WorkerPace(1, 10.0, 128), None, SETTINGS)
    assert sizes([100] * 100, slow) == [32, 32, 32, 4]


def test_a_slice_ends_before_a_prompt_that_would_be_cut() -> None:
    shares = [0, *[2] * 17, 0, *[2] * 21]
    assert sizes([100] * 40, Speed(2_000), shares) == [18, 20, 2]


def test_a_prompt_that_begins_early_in_a_slice_is_cut_where_the_slice_is_full() -> None:
    shares = [0, 2, 0, *[2] * 37]
    assert sizes([100] * 40, Speed(2_000), shares) == [20, 20]


def test_the_last_slices_of_several_workers_get_smaller() -> None:
    found = sizes([100] * 400, Speed(3_000, workers=4))
    assert found[0] == 30
    assert found == sorted(found, reverse=True)
    assert found[-1] <= 3


def test_a_batch_that_fits_one_slice_is_still_shared_among_workers() -> None:
    assert sizes([1_000] * 24, Speed(60_000, workers=4)) == [6] * 4
    assert sizes([1_000] * 24, Speed(60_000, workers=1)) == [24]
