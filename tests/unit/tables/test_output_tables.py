"""Columns that were there come out as they were, in every format, with the new ones behind them."""

from __future__ import annotations

import csv
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.cli.tables.column import Column, ColumnKind
from penstock.cli.tables.input_table import open_table
from penstock.cli.tables.output_table import check_output, written
from penstock.cli.tables.table_format import TableFormat, format_of
from penstock.stack.problem import Problem

NEW = (Column("score", ColumnKind.INTEGER), Column("error"))


def copied(source: Path, target: Path, every: int = 1) -> Path:
    """Write each nth row with a score of its number, or an error where that is even."""
    table = open_table(source, source.name, format_of(source))
    with written(target, format_of(target), table, NEW) as out:
        for chunk in table.chunks():
            kept = [place for place in range(len(chunk.rows)) if (chunk.first + place) % every == 0]
            values: list[list[Any]] = [[None, "why"] if place % 2 else [chunk.first + place, None] for place in kept]
            out.write(chunk, kept, values)
    return target


def typed(folder: Path) -> Path:
    """A Parquet file of types that JSON does not have."""
    moment = datetime(2026, 11, 29, 12, 30, 0, 123456, tzinfo=UTC)
    table = pa.table(
        {
            "id": pa.array([1, 2, None], pa.int32()),
            "at": pa.array([moment, None, moment], pa.timestamp("ns", "UTC")),
            "day": pa.array([date(2026, 11, 29), None, date(1970, 1, 1)]),
            "price": pa.array([Decimal("1.10"), None, Decimal("2.50")], pa.decimal128(10, 2)),
            "tags": pa.array([["a"], [], None], pa.list_(pa.string())),
            "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
            "raw": pa.array([b"\x00\xff", None, b""], pa.binary()),
        }
    ).replace_schema_metadata({"whose": "ours"})
    pq.write_table(table, folder / "t.parquet", row_group_size=2)
    return folder / "t.parquet"


def test_parquet_stays_parquet_to_the_last_type_and_value(tmp_path: Path) -> None:
    source = typed(tmp_path)
    before, after = pq.read_table(source), pq.read_table(copied(source, tmp_path / "o.parquet"))
    assert after.column_names == [*before.column_names, "score", "error"]
    assert after.select(before.column_names).equals(before, check_metadata=True)
    assert after.column("score").to_pylist() == [0, None, 2]
    assert after.column("error").to_pylist() == [None, "why", None]


def test_dates_and_decimals_of_parquet_are_iso_8601_and_plain_in_csv(tmp_path: Path) -> None:
    with copied(typed(tmp_path), tmp_path / "o.csv").open(newline="") as file:
        first, second, _ = csv.DictReader(file)
    assert first["at"] == "2026-11-29T12:30:00.123456+00:00"
    assert (first["id"], first["day"], first["price"], first["tags"]) == ("1", "2026-11-29", "1.10", '["a"]')
    assert (second["id"], second["at"], second["score"], second["error"]) == ("2", "", "", "why")


def test_what_parquet_has_is_jsonl_of_json_types(tmp_path: Path) -> None:
    lines = copied(typed(tmp_path), tmp_path / "o.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[2])
    assert (first["id"], first["tags"], first["price"], first["score"]) == (1, ["a"], "1.10", 0)
    assert (last["id"], last["tags"], last["error"]) == (None, None, None)


def test_csv_comes_out_as_it_went_in_with_its_own_delimiter(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('id;a b;"q;""x"\n1;"two\nlines";é\n', newline="")
    out = copied(tmp_path / "t.csv", tmp_path / "o.csv")
    assert out.read_text() == 'id;a b;"q;""x";score;error\n1;"two\nlines";é;0;\n'


def test_csv_to_parquet_is_text_and_jsonl_to_parquet_has_types(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id\n1\n")
    assert pq.read_schema(copied(tmp_path / "t.csv", tmp_path / "c.parquet")).field("id").type == pa.string()
    rows = [{"n": 1, "x": 1.5, "ok": True, "mixed": 1, "big": 2**70}, {"n": None, "x": 2, "ok": False, "mixed": ["a"]}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = pq.read_table(copied(tmp_path / "t.jsonl", tmp_path / "j.parquet"))
    assert found.schema.types[:5] == [pa.int64(), pa.float64(), pa.bool_(), pa.string(), pa.string()]
    assert found.to_pylist()[1] == {
        "n": None, "x": 2.0, "ok": False, "mixed": '["a"]', "big": None, "score": None, "error": "why",
    }  # fmt: skip


def test_jsonl_keeps_what_is_no_utf_8_and_what_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"half": "\\ud800", "big": 123456789012345678901234567890}\n')
    row = json.loads(copied(tmp_path / "t.jsonl", tmp_path / "o.jsonl").read_text())
    assert (row["half"], row["big"]) == ("\ud800", 123456789012345678901234567890)


@pytest.mark.parametrize("name", ["o.csv", "o.jsonl", "o.parquet"])
def test_rows_that_were_not_chosen_are_not_there_and_the_rest_is_in_order(tmp_path: Path, name: str) -> None:
    (tmp_path / "t.csv").write_text("id\n" + "".join(f"{n}\n" for n in range(2_500)))
    out = copied(tmp_path / "t.csv", tmp_path / name, every=7)
    table = open_table(out, name, format_of(out))
    found = [row["id"] for chunk in table.chunks() for row in chunk.rows]
    assert found == [str(n) for n in range(0, 2_500, 7)]


def test_a_table_that_is_not_finished_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id\n1\n")
    table = open_table(tmp_path / "t.csv", "t.csv", format_of(tmp_path / "t.csv"))
    with pytest.raises(Problem), written(tmp_path / "o.csv", format_of(tmp_path / "o.csv"), table, NEW):
        raise Problem("something")
    assert not (tmp_path / "o.csv").exists()


def test_a_new_column_with_the_name_of_one_that_is_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,error\n1,a\n")
    table = open_table(tmp_path / "t.csv", "t.csv", format_of(tmp_path / "t.csv"))
    with pytest.raises(Problem, match="has a column 'error' already: say --prefix"):
        check_output(TableFormat.CSV, table, NEW)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("a far day", pa.array([2**30, None], pa.date32())),
        ("a far time", pa.array([2**62, None], pa.timestamp("us"))),
        ("a far time within", pa.array([[2**62], None], pa.list_(pa.timestamp("ms")))),
        ("a long while", pa.array([2**62, None], pa.duration("s"))),
        ("an unknown zone", pa.array([1, None], pa.timestamp("us", "Foo/Bar"))),
        ("nanoseconds in a list", pa.array([[1_234_567_891], None], pa.list_(pa.timestamp("ns")))),
        ("nanoseconds in a struct", pa.array([{"a": 1_234_567_891}, None], pa.struct([("a", pa.timestamp("ns"))]))),
        ("nanoseconds in a map", pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.duration("ns")))),
        ("a view", pa.array([b"x", None], pa.binary_view())),
    ],
)
def test_what_python_has_no_value_for_goes_through_too(tmp_path: Path, name: str, column: Any) -> None:
    source = tmp_path / "t.parquet"
    pq.write_table(pa.table({"v": column}), source)
    before = pq.read_table(source)
    assert pq.read_table(copied(source, tmp_path / "o.parquet")).select(["v"]).equals(before)
    assert pq.read_table(copied(source, tmp_path / "some.parquet", every=2)).select(["v"]).equals(before.slice(0, 1))
    first, second = map(json.loads, copied(source, tmp_path / "o.jsonl").read_text().splitlines())
    assert (first["v"] is None, second["v"]) == (False, None)


def test_a_bare_carriage_return_in_a_cell_ends_no_row(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b'a,b\n"x\ry",2\n"x\r\ny",3\n')
    out = copied(tmp_path / "t.csv", tmp_path / "o.csv").read_bytes()
    assert out == b'a,b,score,error\n"x\ry",2,0,\n"x\r\ny",3,,why\n'


def test_whole_numbers_beside_others_are_the_nearest_that_parquet_has(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(f'{{"n": {2**60 + 1}}}\n{{"n": 0.5}}\n')
    out = pq.read_table(copied(tmp_path / "t.jsonl", tmp_path / "o.parquet"))
    assert out.column("n").to_pylist() == [float(2**60), 0.5]
