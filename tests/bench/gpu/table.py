"""The table of a course, in Markdown: ours, theirs and their ratio, part by part, and what was not measured and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from bench.gpu import batch
from bench.gpu.course import Course, Status
from bench.gpu.part import Part, Row

_HEAD: Final = ("part", "what", "unit", "ours", "theirs", "ours / theirs", "remark")


def markdown(course: Course) -> str:
    """All of it."""
    lines = [f"Penstock {course.head['code']['penstock']} ({course.head['code']['commit']}), {course.head['told']}", ""]
    lines += [_line(_HEAD), _line("---" for _ in _HEAD)]
    lines += [_line(cells) for part in course.parts if part.applies(course.setting) for cells in _cells(course, part)]
    return "\n".join([*lines, "", *_notes(course)]) + "\n"


def _cells(course: Course, part: Part) -> Iterator[tuple[str, ...]]:
    outcome = course.outcomes.get(part.name)
    if outcome is None or outcome["status"] == Status.NO_TIME:
        yield f"({part.name})", part.question, "", "–", "–", "–", _words(outcome)
        return
    for row in course.rows(part):
        remark = _words(outcome) if row.open else row.excuse or row.remark
        yield (
            f"({part.name})", row.what, row.unit, _number(row.ours), _number(row.theirs),
            "–" if row.ratio is None else f"{row.ratio:.2f}", remark,
        )  # fmt: skip


def _words(outcome: dict[str, Any] | None) -> str:
    return f"{outcome['status']}: {outcome['why']}" if outcome else "not measured yet"


def _notes(course: Course) -> Iterator[str]:
    bound = next((row.theirs for row in _all(course) if row.what == batch.ALONE_ROW), None)
    if bound is not None:
        yield f"The engine's own bound, offline: {_number(bound)} tokens/s, of prompts and answers."
    if course.ended:
        yield course.ended
    for name, outcome in course.outcomes.items():
        if outcome["status"] != Status.DONE:
            yield _flat(f"({name}) {_words(outcome)}")
        now, of = course.of(), outcome.get("of") or {}
        if others := [f"{what} {of[what]}" for what in now if of.get(what) and of[what] != now[what]]:
            yield f"({name}) was measured with {', '.join(others)}."


def _all(course: Course) -> Iterator[Row]:
    for part in course.parts:
        if part.name in course.outcomes:
            yield from course.rows(part)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _line(cells: Any) -> str:
    return f"| {' | '.join(_flat(cell.replace('|', '/')) for cell in cells)} |"


def _flat(words: str) -> str:
    """In one line: a reason may be the end of a log."""
    return " ".join(words.split())
