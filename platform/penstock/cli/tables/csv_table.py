"""CSV and TSV: RFC 4180 with a header, in UTF-8, a BOM or not; a quoted cell may hold delimiters and line breaks."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from penstock.cli.tables.column import Column, as_text
from penstock.cli.tables.input_table import CHUNK_ROWS, Chunk, InputTable, Row, distinct
from penstock.cli.tables.table_format import TableFormat
from penstock.cli.tables.text_file import opened_text
from penstock.stack.problem import Problem

_DELIMITERS: Final = (",", ";", "\t", "|")
_MOST_CELL_CHARACTERS: Final = 2**31 - 1  # the module's own 131,072 is less than a long document


class CsvInput:
    """A CSV or TSV file: every cell is text."""

    def __init__(self, file: Path, name: str, format: TableFormat, delimiter: str | None) -> None:
        csv.field_size_limit(_MOST_CELL_CHARACTERS)
        self._file = file
        self._name = name
        self.format = format
        self.delimiter: str = delimiter or ("\t" if format is TableFormat.TSV else self._shown_delimiter())
        with opened_text(file, name) as text:
            records = self._records(text)
            header = next(records, None)
            if header is None:
                raise Problem(f"{name} is empty: a table begins with the names of its columns.")
            distinct(header, name)
            self.columns = tuple(Column(one) for one in header)
            self.count = sum(1 for _ in records)

    def chunks(self) -> Iterator[Chunk]:
        """All rows, from the first."""
        names = [column.name for column in self.columns]
        first = 0
        rows: list[Row] = []
        with opened_text(self._file, self._name) as text:
            records = self._records(text)
            next(records)
            for record in records:
                rows.append(dict(zip(names, record, strict=True)))
                if len(rows) == CHUNK_ROWS:
                    yield Chunk(first, rows)
                    first, rows = first + len(rows), []
        if rows:
            yield Chunk(first, rows)

    def _records(self, text: TextIO) -> Iterator[list[str]]:
        """The header, and the records that are not blank; each has as many cells."""
        # strict: a quote that is never closed would make the rest of the file one cell.
        reader = csv.reader(text, delimiter=self.delimiter, strict=True)
        width, begins = None, 1
        try:
            for record in reader:
                if width is not None and record and len(record) != width:
                    where = f"{self._name}, line {begins}, has {len(record)} cells"
                    raise Problem(f"{where}; the header names {width} columns.")
                begins = reader.line_num + 1
                if record:
                    width = len(record)
                    yield record
        except csv.Error as error:
            raise Problem(f"{self._name} is no CSV in the row that begins in line {begins}: {error}.") from None

    def _shown_delimiter(self) -> str:
        """The one that the header has most often outside of quotes; a comma if it has none."""
        with opened_text(self._file, self._name) as text:
            header = next((line for line in text if line.strip()), "")
            bare = "".join(header.split('"')[::2])
        return max(_DELIMITERS, key=bare.count)


class _LineFeeds:
    """Takes rows that end in CR LF, each at once, as csv writes them, and ends them with LF."""

    def __init__(self, text: TextIO) -> None:
        self._text = text

    def write(self, row: str) -> int:
        return self._text.write(row.removesuffix("\r\n") + "\n")


class CsvOutput:
    """CSV or TSV that is being written: null is an empty cell."""

    def __init__(self, file: Path, format: TableFormat, table: InputTable, new: Sequence[Column]) -> None:
        delimiter = "\t" if format is TableFormat.TSV else ","
        if table.format is format and table.delimiter:
            delimiter = table.delimiter
        self._names = [column.name for column in table.columns]
        self._text = file.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        # It quotes cells with the characters of its line end only, and a bare \r ends a line for who reads it.
        self._csv = csv.writer(_LineFeeds(self._text), delimiter=delimiter, lineterminator="\r\n")
        self._csv.writerow([*self._names, *(column.name for column in new)])

    def write(self, chunk: Chunk, kept: Sequence[int], new: Sequence[Sequence[Any]]) -> None:
        """Write the kept rows of a chunk, each with its values of the new columns."""
        for place, values in zip(kept, new, strict=True):
            row = chunk.rows[place]
            cells = [row[name] for name in self._names]
            self._csv.writerow([as_text(cell) for cell in (*cells, *values)])

    def close(self) -> None:
        """Write what is left."""
        self._text.close()
