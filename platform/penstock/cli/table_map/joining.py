"""Joining: the table again, row by row, each with what came back for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from penstock.cli.places.following import fetch_files
from penstock.cli.places.place import OpenPlace
from penstock.cli.places.sidecar import Sidecar
from penstock.cli.table_map.plan import MapPlan
from penstock.cli.tables.input_table import Row
from penstock.cli.tables.output_table import written
from penstock.cli.tables.row_answers import RowAnswer, merged
from penstock.stack.problem import Problem


@dataclass
class RowCounts:
    """How many rows were written, and how many of them without an answer."""

    rows: int = 0
    failed: int = 0


class AnswerCursor:
    """Answers in the order of their rows, met by rows in the same order."""

    def __init__(self, answers: Iterator[RowAnswer]) -> None:
        self._answers = answers
        self._coming = next(answers, None)

    def of(self, number: int) -> RowAnswer | None:
        """The answer of this row, if it has one."""
        found = self._coming
        if found is None or found.number > number:
            return None
        if found.number < number:
            raise Problem(f"An answer came for row {found.number + 1}, which was not asked: say --fresh.")
        self._coming = next(self._answers, None)
        return found


class _AskedRows:
    """Which row each line of all requests is of; the table is read again for it once somebody asks."""

    def __init__(self, plan: MapPlan) -> None:
        self._plan = plan
        self._rows: list[int] | None = None

    def row_of(self, before: int, line: int) -> int:
        """The row of a line, counted from 1 behind so many lines of earlier parts; raise Problem if there is none."""
        if self._rows is None:
            self._rows = [one.number for one in self._plan.requests(None).starting(0) if one.line is not None]
        if not 0 < line <= len(self._rows) - before:
            raise Problem(f"An answer came for line {line}, which was not asked: say --fresh.")
        return self._rows[before + line - 1]


def write_joined(plan: MapPlan, place: OpenPlace, sidecar: Sidecar, states: Sequence[dict[str, Any]]) -> RowCounts:
    """Write OUT: the chosen rows in their order, all their columns, and the new ones. Raises Problem."""
    plan.unchanged()
    counts = RowCounts()
    values_of = _values(plan, AnswerCursor(_answers(plan, place, sidecar, states)), states)
    with written(plan.options.out, plan.out_format, plan.table, plan.new.columns) as out:
        for chunk in plan.table.chunks():
            if chunk.first >= plan.choice.rows:
                break
            kept = [at for at in range(len(chunk.rows)) if plan.choice.takes(chunk.first + at)]
            new = [values_of(chunk.first + at, chunk.rows[at]) for at in kept]
            out.write(chunk, kept, new)
            counts.rows += len(kept)
            counts.failed += sum(values[-1] is not None for values in new)
            place.tend()
    return counts


def _values(plan: MapPlan, answers: AnswerCursor, states: Sequence[dict[str, Any]]) -> Callable[[int, Row], list[Any]]:
    """What says the new columns' values of a row, asked row by row."""
    ends = ", ".join(sorted({state["status"] for state in states}))
    requests = plan.requests(None)

    def values_of(number: int, row: Row) -> list[Any]:
        if answer := answers.of(number):
            return plan.new.values(answer)
        fault = requests.of(number, row).fault
        return plan.new.failed(fault or f"no answer came; its batch ended as {ends}")

    return values_of


def write_empty(plan: MapPlan) -> None:
    """Write OUT for a table without rows: its columns alone. Raises Problem."""
    with written(plan.options.out, plan.out_format, plan.table, plan.new.columns):
        pass


def _answers(
    plan: MapPlan, place: OpenPlace, sidecar: Sidecar, states: Sequence[dict[str, Any]]
) -> Iterator[RowAnswer]:
    """What came back, in the order of the rows; one batch's files are here at a time."""
    out, asked = plan.options.out, _AskedRows(plan)
    for number, state in enumerate(states):
        before = sum(part.lines for part in sidecar.parts[:number])
        files: tuple[Path, ...] = ()
        try:
            files = fetch_files(place, sidecar, number, state, out)
            with ExitStack() as stack:
                output, errors = (stack.enter_context(file.open("rb")) for file in files)
                yield from merged(output, errors, partial(asked.row_of, before))
        finally:
            for file in files:
                file.unlink(missing_ok=True)
