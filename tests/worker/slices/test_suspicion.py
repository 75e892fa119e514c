"""Suspicion: who is asked how after engine deaths: at most four engines a line, and nobody else is convicted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.work.suspicion import FEW, GUILTY_DEATHS, trial


def test_lines_that_were_in_no_engine_are_asked_freely_and_in_order() -> None:
    how = trial([3, 1, 2], {}, crashes=1)
    assert (how.guilty, how.groups, how.free) == ((), (), (3, 1, 2))


def test_suspects_of_one_death_are_asked_eight_at_once_and_those_of_more_alone_the_worst_first() -> None:
    suspects = dict.fromkeys(range(1, 11), 1) | {11: 2, 12: 3, 13: 4}
    how = trial(range(1, 15), suspects, crashes=0)
    assert how.groups == ((12,), (11,), tuple(range(1, 9)), (9, 10))
    assert (how.guilty, how.free) == ((13,), (14,))


def test_a_slice_that_was_reaped_twice_is_suspect_as_a_whole() -> None:
    how = trial(range(1, 10), {2: 3}, crashes=2)
    assert how.groups == ((2,), (1, 3, 4, 5, 6, 7, 8, 9))
    assert how.free == ()


@given(st.lists(st.integers(1, 60), unique=True, min_size=1), st.sets(st.integers(1, 60)), st.integers(0, 4))
def test_every_poison_line_ends_after_four_deaths_and_nobody_else_is_convicted(
    lines: list[int], poison: set[int], crashes: int
) -> None:
    suspects: dict[int, int] = {}
    died: dict[int, int] = {}
    open_lines, convicted, engines = list(lines), set[int](), 0
    while open_lines:
        how = trial(open_lines, suspects, crashes)
        convicted |= set(how.guilty)
        answered = set(how.guilty)
        for group in [*how.groups, how.free]:
            assert len(group) <= FEW or group is how.free
            if killers := poison & set(group):
                engines += 1
                for line in group:
                    suspects[line] = min(GUILTY_DEATHS, max(suspects.get(line, 0), crashes >= 2) + 1)
                for line in killers:
                    died[line] = died.get(line, 0) + 1
                break
            answered |= set(group)
        open_lines = [line for line in open_lines if line not in answered]
    assert convicted == poison & set(lines)
    assert all(deaths <= GUILTY_DEATHS for deaths in died.values())
    assert engines <= GUILTY_DEATHS * len(convicted)
