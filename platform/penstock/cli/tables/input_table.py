"""Input tables: what is read a chunk of rows at a time, from the beginning as often as wanted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from penstock.cli.tables.column import Column
from penstock.cli.tables.table_format import TableFormat
from penstock.stack.problem import Problem

CHUNK_ROWS: Final = 1_000
"""So many rows are held at once."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Chunk:
    """Some rows that stand behind each other."""

    first: int
    """The number of its first row; a table's first is 0."""
    rows: Sequence[Row]
    arrow: Any = None
    """Of a Parquet file: the same rows as a RecordBatch, with their own types."""


class InputTable(Protocol):
    """A table that was looked through once: its columns are known, its rows counted, and every row can be read."""

    @property
    def format(self) -> TableFormat:
        """What it is read as."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """Its columns, in order."""

    @property
    def count(self) -> int:
        """How many rows it has."""

    @property
    def delimiter(self) -> str | None:
        """What stands between the cells of CSV and TSV."""

    def chunks(self) -> Iterator[Chunk]:
        """All rows, from the first; raises Problem if they can't be read any more."""


def open_table(file: Path, name: str, format: TableFormat, delimiter: str | None = None) -> InputTable:
    """Look through a table; raise Problem, with the line, if it can't be read.

    name: what people call it. delimiter: of CSV; else what its header shows.
    """
    if delimiter and format not in (TableFormat.CSV, TableFormat.TSV):
        raise Problem(f"--delimiter is for CSV, and {name} is {format}.")
    # Each when it is asked for: pyarrow takes a quarter of a second.
    if format is TableFormat.PARQUET:
        from penstock.cli.tables.parquet_table import ParquetInput

        return ParquetInput(file, name)
    if format is TableFormat.JSONL:
        from penstock.cli.tables.jsonl_table import JsonlInput

        return JsonlInput(file, name)
    from penstock.cli.tables.csv_table import CsvInput

    return CsvInput(file, name, format, delimiter)


def distinct(columns: Sequence[str], name: str) -> None:
    """Raise Problem if two columns have one name: a template could name only one of them."""
    seen: dict[str, int] = {}
    for place, column in enumerate(columns, 1):
        if column in seen:
            where = f"columns {seen[column]} and {place}"
            raise Problem(f"{name} has the column name {column!r} twice ({where}): rename one of them.")
        seen[column] = place
