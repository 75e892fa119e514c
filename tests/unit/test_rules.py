"""Rules that need no server: moves, ids, windows, keys, and who is suspected of an engine's death."""

from __future__ import annotations

import re
import string
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain import ids
from penstock.domain.api_errors import BadRequest, Conflict
from penstock.domain.idempotency import Idempotency, remembered
from penstock.domain.work import batch, lane, slice
from penstock.domain.work.suspicion import FEW, GUILTY_DEATHS, trial


@pytest.mark.parametrize(
    ("moves", "first"),
    [(batch.MOVES, {"validating", "in_progress"}), (slice.MOVES, {"queued"})],
    ids=["batch", "slice"],
)
def test_every_state_is_reached_and_every_open_one_leads_to_an_end(moves: dict, first: set[str]) -> None:
    def after(states: set[str]) -> set[str]:
        reached = set(states)
        while more := {to for state in reached for to in moves[state]} - reached:
            reached |= more
        return reached

    ends = {state for state, becomes in moves.items() if not becomes}
    assert after(first) == set(moves)
    assert all(after({state}) & ends for state in moves)
    assert all(state not in becomes for state, becomes in moves.items())


moments = st.tuples(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))


@given(moments, moments)
def test_ids_sort_by_time_and_then_by_chance_and_differ_if_either_does(one: tuple, other: tuple) -> None:
    first, second = (ids.sortable_id("batch_", *moment) for moment in (one, other))
    assert (first < second, first == second) == (one < other, one == other)
    assert re.fullmatch("batch_[0-9a-hjkmnp-tv-z]{26}", first)


@given(st.lists(st.tuples(st.text(string.ascii_lowercase + "_0123456789", max_size=8), st.integers(1)), unique=True))
def test_the_ids_of_output_lines_are_the_same_each_time_and_no_two_lines_share_one(lines: list[tuple]) -> None:
    made = [ids.line_id(*line) for line in lines]
    assert len(set(made)) == len(lines)
    assert made == [ids.line_id(*line) for line in lines]


@given(st.integers(1, 999_999), st.sampled_from("mhd"), st.integers(60, 10**9))
def test_a_window_is_read_as_it_is_written_or_refused_as_too_long(count: int, unit: str, most: int) -> None:
    seconds = count * {"m": 60, "h": 3600, "d": 86_400}[unit]
    if seconds <= most:
        assert batch.parse_window(f"{count}{unit}", most) == timedelta(seconds=seconds)
    else:
        with pytest.raises(BadRequest):
            batch.parse_window(f"{count}{unit}", most)


@given(st.text(max_size=12).filter(lambda text: not re.fullmatch(r"[1-9][0-9]{0,5}[mhd]", text)))
def test_whatever_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        batch.parse_window(text, 10**9)


@given(st.text(max_size=20), st.text(max_size=20), st.binary(max_size=32), st.binary(max_size=32))
def test_a_key_stands_for_the_request_that_it_came_with_first(key: str, id: str, first: bytes, again: bytes) -> None:
    assert remembered(Idempotency(key, first), None) is None
    if first == again:
        assert remembered(Idempotency(key, again), (id, first)) == id
    else:
        with pytest.raises(Conflict):
            remembered(Idempotency(key, again), (id, first))


@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60), st.sampled_from(lane.LANES))
def test_a_queues_name_is_plain_and_tells_models_and_lanes_apart(one: str, other: str, in_lane: lane.Lane) -> None:
    name = lane.generate_queue(one, in_lane)
    assert re.fullmatch(r"gpu\.[a-z0-9-]+\.[a-z]+", name)
    assert (name == lane.generate_queue(other, in_lane)) == (one == other)
    assert len({lane.generate_queue(one, each) for each in lane.LANES}) == len(lane.LANES)


numbers = st.lists(st.integers(1, 60), unique=True, max_size=40)


@given(numbers, st.dictionaries(st.integers(1, 60), st.integers(1, GUILTY_DEATHS)), st.integers(0, 4))
def test_every_line_is_asked_in_one_way_and_suspects_in_small_company(
    remaining: list[int], suspects: dict[int, int], crashes: int
) -> None:
    how = trial(remaining, suspects, crashes)
    tried = [line for group in how.groups for line in group]
    assert sorted([*how.guilty, *tried, *how.free]) == sorted(remaining)
    assert all(suspects.get(line, 0) >= GUILTY_DEATHS for line in how.guilty)
    assert all(len(group) <= FEW for group in how.groups)
    assert all(len(group) == 1 for group in how.groups if any(suspects.get(line, 0) > 1 for line in group))
    assert not any(line in suspects for line in how.free)
    assert not how.free or crashes < 2
