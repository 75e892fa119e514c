"""The picture of slots and the charts: each slot is one cell, each value has its place."""

from __future__ import annotations

from penstock.console.drawings.slots_picture import CELL, slots_picture
from penstock.console.drawings.time_chart import nice, time_chart


def test_every_slot_is_one_cell_and_a_large_engine_needs_few_shapes() -> None:
    lines = {"priority": 3, "standard": 500, "flex": 0}
    slots = {"calls": 40, "lines": lines, "free": 1, "closed": 400, "reserved": 80}
    picture = slots_picture(slots)
    assert sum(run.width for run in picture.runs) == 1_024 * CELL
    cells = {(run.x + CELL * i, run.y) for run in picture.runs for i in range(run.width // CELL)}
    assert len(cells) == 1_024
    assert max(y for _, y in cells) < picture.height
    assert len(picture.runs) <= 1_024 // 64 + 7
    assert picture.words.startswith("1024 slots: 40 waiting calls, 3 lines of lane priority, 500 lines")


def test_an_engine_without_slots_has_a_picture() -> None:
    none = {"calls": 0, "lines": {"priority": 0, "standard": 0, "flex": 0}, "free": 0, "closed": 0, "reserved": 0}
    assert (slots_picture(none).runs, slots_picture(none).words) == ((), "no slots")


def test_a_chart_is_broken_where_nothing_was_sampled() -> None:
    chart = time_chart("Calls", "ms", [0, 10, 20, 30], [("p95", [1.0, 2.0, None, 5.0])], promise=4.0)
    [line] = chart.lines
    assert (len(line.pieces), line.latest) == (2, 5.0)
    first, last = line.pieces[0].split(" ")[0], line.pieces[1].split(" ")
    assert first.split(",")[0] == str(chart.left)
    assert last[0] == last[1] == f"{chart.right},8", "the highest value is at the top, alone it is a dot"
    assert chart.rows[0] == ("00:00", (5.0,))
    assert not chart.is_empty
    assert time_chart("Calls", "ms", [0, 10], [("p95", [None, None])]).is_empty
    assert time_chart("Calls", "ms", [], [("p95", [])]).is_empty


def test_an_axis_ends_at_a_round_number() -> None:
    assert [nice(value) for value in (0, 0.03, 1, 1.2, 4.9, 7, 101)] == [1, 0.05, 1, 2, 5, 10, 200]
