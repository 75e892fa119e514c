"""Answers meet their rows, and one that belongs to none is no answer of another."""

from __future__ import annotations

import pytest

from penstock.cli.table_map.joining import AnswerCursor
from penstock.cli.tables.row_answers import RowAnswer
from penstock.stack.problem import Problem


def test_a_row_without_an_answer_leaves_the_next_ones_to_those_behind_it() -> None:
    cursor = AnswerCursor(iter([RowAnswer(1, "b", None), RowAnswer(3, "d", None)]))
    found = [cursor.of(number) for number in range(5)]
    assert [one and one.text for one in found] == [None, "b", None, "d", None]


def test_an_answer_that_was_not_asked_for_stops_it() -> None:
    cursor = AnswerCursor(iter([RowAnswer(1, "b", None)]))
    with pytest.raises(Problem, match="An answer came for row 2, which was not asked"):
        cursor.of(2)
