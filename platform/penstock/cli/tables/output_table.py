"""Output tables: the input's columns as they were, and new ones behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from penstock.cli.own_files import part_of
from penstock.cli.tables.column import Column
from penstock.cli.tables.input_table import Chunk, InputTable
from penstock.cli.tables.table_format import TableFormat
from penstock.stack.problem import Problem


class OutputTable(Protocol):
    """A table that is being written."""

    def write(self, chunk: Chunk, kept: Sequence[int], new: Sequence[Sequence[Any]]) -> None:
        """Write the kept rows of a chunk (by their places in it), each with its values of the new columns."""

    def close(self) -> None:
        """Write what is left."""


@contextmanager
def written(file: Path, format: TableFormat, table: InputTable, new: Sequence[Column]) -> Iterator[OutputTable]:
    """A table that is there under its name only once it is whole; raise Problem if it can't be written."""
    part = part_of(file)
    try:
        output = _opened(part, format, table, new)
        try:
            yield output
        finally:
            output.close()
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise Problem(f"{file} can't be written: {error.strerror or error}.") from None


def _opened(part: Path, format: TableFormat, table: InputTable, new: Sequence[Column]) -> OutputTable:
    if format is TableFormat.PARQUET:
        from penstock.cli.tables.parquet_table import ParquetOutput

        return ParquetOutput(part, table, new)
    if format is TableFormat.JSONL:
        from penstock.cli.tables.jsonl_table import JsonlOutput

        return JsonlOutput(part, table, new)
    from penstock.cli.tables.csv_table import CsvOutput

    return CsvOutput(part, format, table, new)


def check_output(format: TableFormat, table: InputTable, new: Sequence[Column]) -> None:
    """Raise Problem if such a table could not be written: what writes it is missing, or two columns have one name."""
    if format is TableFormat.PARQUET:
        from penstock.cli.tables.parquet_table import ParquetOutput  # noqa: F401
    there = {column.name for column in table.columns}
    for column in new:
        if column.name in there:
            why = f"The table has a column {column.name!r} already"
            raise Problem(f"{why}: say --prefix TEXT, which goes before the names of all new columns.")
