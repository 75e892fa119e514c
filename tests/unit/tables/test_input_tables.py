"""Tables as people have them are read as they are, or refused in one line that says where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.cli.tables.column import ColumnKind
from penstock.cli.tables.input_table import CHUNK_ROWS, InputTable, open_table
from penstock.cli.tables.table_format import TableFormat, format_of
from penstock.stack.problem import Problem


def opened(folder: Path, name: str, content: str | bytes, **more: Any) -> InputTable:
    """The table of a file with this content."""
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_table(file, name, format_of(file), **more)


def rows(table: InputTable) -> list[dict[str, Any]]:
    """All its rows."""
    return [row for chunk in table.chunks() for row in chunk.rows]


def names(table: InputTable) -> list[str]:
    """Its columns' names."""
    return [column.name for column in table.columns]


def test_a_bom_is_no_part_of_the_first_columns_name(tmp_path: Path) -> None:
    table = opened(tmp_path, "t.csv", "\ufeffid,text\n1,a\n")
    assert names(table) == ["id", "text"]
    assert rows(table) == [{"id": "1", "text": "a"}]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_header_shows_the_delimiter(tmp_path: Path, mark: str) -> None:
    table = opened(tmp_path, "t.csv", f'id{mark}"a, b; c"{mark}n\n1{mark}x{mark}2\n')
    assert table.delimiter == mark
    assert rows(table) == [{"id": "1", "a, b; c": "x", "n": "2"}]


def test_a_delimiter_that_is_told_stands_over_what_the_header_shows(tmp_path: Path) -> None:
    assert names(opened(tmp_path, "t.csv", "a,b:c,d\n", delimiter=":")) == ["a,b", "c,d"]


def test_a_tsv_has_tabs_whatever_its_header_holds(tmp_path: Path) -> None:
    assert names(opened(tmp_path, "t.tsv", "a,b,c\td\n")) == ["a,b,c", "d"]


def test_quoted_cells_keep_line_breaks_quotes_and_delimiters(tmp_path: Path) -> None:
    table = opened(tmp_path, "t.csv", 'id,text\r\n1,"a\r\nb, ""c"""\r\n2,\r\n')
    assert rows(table) == [{"id": "1", "text": 'a\r\nb, "c"'}, {"id": "2", "text": ""}]
    assert table.count == 2


def test_a_cell_may_be_as_long_as_a_book(tmp_path: Path) -> None:
    assert len(rows(opened(tmp_path, "t.csv", "text\n" + "x" * 1_000_000 + "\n"))[0]["text"]) == 1_000_000


def test_a_quote_that_is_never_closed_is_refused_and_does_not_swallow_the_rest(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"t\.csv is no CSV in the row that begins in line 2: "):
        opened(tmp_path, "t.csv", 'id,text\n1,"a\n2,b\n3,c\n')


def test_a_row_of_another_width_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"t\.csv, line 3, has 3 cells; the header names 2 columns"):
        opened(tmp_path, "t.csv", "id,text\n1,a\n2,b,c\n")


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    assert rows(opened(tmp_path, "t.csv", "id\n\n1\n\n2\n\n")) == [{"id": "1"}, {"id": "2"}]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"the column name 'text' twice \(columns 2 and 3\)"):
        opened(tmp_path, "t.csv", "id,text,text\n1,a,b\n")


def test_a_header_alone_is_a_table_without_rows_and_nothing_is_none(tmp_path: Path) -> None:
    assert opened(tmp_path, "t.csv", "id,text\n").count == 0
    for name in ("t.csv", "t.tsv", "t.jsonl"):
        with pytest.raises(Problem, match=f"{name} is empty"):
            opened(tmp_path, name, "")


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_what_is_not_utf_8_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(Problem, match=f"{name} is not text in UTF-8"):
        opened(tmp_path, name, 'text\n{"a": "Käse"}\n'.encode("cp1252"))


def test_keys_that_a_row_lacks_are_null_and_all_keys_are_columns(tmp_path: Path) -> None:
    table = opened(tmp_path, "t.jsonl", '{"a": 1}\n\n{"b": "x", "a": 2.5}\n{"c": null}\n')
    assert [(one.name, one.kind) for one in table.columns] == [
        ("a", ColumnKind.NUMBER),
        ("b", ColumnKind.TEXT),
        ("c", ColumnKind.TEXT),
    ]
    assert rows(table)[0] == {"a": 1, "b": None, "c": None}


@pytest.mark.parametrize(("line", "what"), [("[1]", "no JSON object"), ("{", "no JSON"), ("7", "no JSON object")])
def test_a_line_that_is_no_object_is_refused_with_its_number(tmp_path: Path, line: str, what: str) -> None:
    with pytest.raises(Problem, match=rf"t\.jsonl, line 2, is {what}"):
        opened(tmp_path, "t.jsonl", f'{{"a": 1}}\n{line}\n')


def test_chunks_number_their_rows_from_0_without_a_gap(tmp_path: Path) -> None:
    table = opened(tmp_path, "t.csv", "id\n" + "".join(f"{n}\n" for n in range(2 * CHUNK_ROWS + 1)))
    assert [(chunk.first, len(chunk.rows)) for chunk in table.chunks()] == [(0, 1000), (1000, 1000), (2000, 1)]
    assert [row["id"] for row in rows(table)] == [str(n) for n in range(2001)]


def test_a_name_that_says_no_format_is_refused_with_those_that_do() -> None:
    with pytest.raises(Problem, match=r"has the extension '.xlsx': a table is one of \.csv, \.tsv"):
        format_of(Path("t.xlsx"))
    assert format_of(Path("t.xlsx"), TableFormat.CSV) is TableFormat.CSV


def test_what_is_no_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"t\.parquet is no Parquet file"):
        opened(tmp_path, "t.parquet", "id,text\n1,a\n")


def test_blank_lines_before_the_header_do_not_hide_its_delimiter(tmp_path: Path) -> None:
    assert names(opened(tmp_path, "t.csv", "\n\nid;text\n1;a\n")) == ["id", "text"]


def test_a_file_with_a_key_for_each_row_is_refused_before_it_is_written_square(tmp_path: Path) -> None:
    content = "".join(f'{{"k{n}": 1}}\n' for n in range(10_001))
    with pytest.raises(Problem, match=r"more than 10,000 different keys by its row 10,001"):
        opened(tmp_path, "t.jsonl", content)
