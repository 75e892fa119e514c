"""Joining: the table again, row by row, each with what came back for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.cli.places.following import fetch_files
from penstock.cli.places.place import OpenPlace
from penstock.cli.places.sidecar import Sidecar
from penstock.cli.table_map.plan import MapPlan
from penstock.cli.tables.output_table import written
from penstock.cli.tables.row_answers import RowAnswer, merged
from penstock.stack.problem import Problem


@dataclass
class RowCounts:
    """How many rows were written, and how many of them without an answer."""

    rows: int = 0
    failed: int = 0


def write_joined(plan: MapPlan, place: OpenPlace, sidecar: Sidecar, states: Sequence[dict[str, Any]]) -> RowCounts:
    """Write OUT: the chosen rows in their order, all their columns, and the new ones. Raises Problem."""
    plan.unchanged()
    requests = plan.requests(place.model)
    ends = ", ".join(sorted({state["status"] for state in states}))
    counts = RowCounts()
    answers = _answers(plan, place, sidecar, states)
    coming = next(answers, None)
    with written(plan.options.out, plan.out_format, plan.table, plan.new.columns) as out:
        for chunk in plan.table.chunks():
            kept: list[int] = []
            new: list[list[Any]] = []
            for place_, row in enumerate(chunk.rows):
                number = chunk.first + place_
                if not plan.choice.takes(number):
                    continue
                if coming is not None and coming.number == number:
                    values = plan.new.values(coming)
                    coming = next(answers, None)
                else:
                    fault = requests.of(number, row).fault
                    values = plan.new.failed(fault or f"no answer came; its batch ended as {ends}")
                kept.append(place_)
                new.append(values)
                counts.failed += values[-1] is not None
            counts.rows += len(kept)
            out.write(chunk, kept, new)
            place.tend()
            if chunk.first + len(chunk.rows) >= plan.choice.rows:
                break
        if coming is not None:
            raise Problem(f"An answer came for row {coming.number + 1}, which was not asked: say --fresh.")
    return counts


def write_empty(plan: MapPlan) -> None:
    """Write OUT for a table without rows: its columns alone. Raises Problem."""
    with written(plan.options.out, plan.out_format, plan.table, plan.new.columns):
        pass


def _answers(
    plan: MapPlan, place: OpenPlace, sidecar: Sidecar, states: Sequence[dict[str, Any]]
) -> Iterator[RowAnswer]:
    """What came back, in the order of the rows; one batch's files are here at a time."""
    out = plan.options.out
    for part, state in zip(sidecar.parts, states, strict=True):
        files: tuple[Path, ...] = ()
        try:
            files = fetch_files(place, part, state, out.parent, out.name)
            with ExitStack() as stack:
                output, errors = (stack.enter_context(file.open("rb")) for file in files)
                yield from merged(output, errors)
        finally:
            for file in files:
                file.unlink(missing_ok=True)
