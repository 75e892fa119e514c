"""JSON Lines: an object a row; a key that a row does not have is null."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from penstock.cli.tables.column import Column, ColumnKind, as_json, joined, kind_of
from penstock.cli.tables.input_table import CHUNK_ROWS, Chunk, InputTable, Row
from penstock.cli.tables.table_format import TableFormat
from penstock.cli.tables.text_file import opened_text
from penstock.stack.problem import Problem

MOST_COLUMNS: Final = 10_000
"""Every row is written with every column: a file of a key for each row would grow by the square of it."""


class JsonlInput:
    """A file of JSON objects; its columns are all keys, in the order in which they first come."""

    format = TableFormat.JSONL
    delimiter = None

    def __init__(self, file: Path, name: str) -> None:
        self._file = file
        self._name = name
        self.count = 0
        kinds: dict[str, ColumnKind | None] = {}
        for row in self._rows():
            self.count += 1
            for key, value in row.items():
                kinds[key] = joined(kinds.get(key), kind_of(value))
            if len(kinds) > MOST_COLUMNS:
                raise Problem(f"{name} has more than {MOST_COLUMNS:,} different keys by its row {self.count:,}.")
        if not self.count:
            raise Problem(f"{name} is empty: it has no rows, so no columns.")
        self.columns = tuple(Column(key, kind or ColumnKind.TEXT) for key, kind in kinds.items())

    def chunks(self) -> Iterator[Chunk]:
        """All rows, from the first."""
        nothing: Row = dict.fromkeys(column.name for column in self.columns)
        first = 0
        rows: list[Row] = []
        for row in self._rows():
            rows.append(nothing | row)
            if len(rows) == CHUNK_ROWS:
                yield Chunk(first, rows)
                first, rows = first + len(rows), []
        if rows:
            yield Chunk(first, rows)

    def _rows(self) -> Iterator[Row]:
        with opened_text(self._file, self._name) as text:
            for number, line in enumerate(text, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    raise Problem(f"{self._name}, line {number}, is no JSON.") from None
                if not isinstance(row, dict):
                    raise Problem(f"{self._name}, line {number}, is no JSON object: a row is one object on one line.")
                yield row


class JsonlOutput:
    """JSON Lines that are being written: every row has every column."""

    def __init__(self, file: Path, table: InputTable, new: Sequence[Column]) -> None:
        self._names = [column.name for column in table.columns]
        self._new = [column.name for column in new]
        self._text = file.open("w", encoding="utf-8", newline="")

    def write(self, chunk: Chunk, kept: Sequence[int], new: Sequence[Sequence[Any]]) -> None:
        """Write the kept rows of a chunk, each with its values of the new columns."""
        for place, values in zip(kept, new, strict=True):
            row = chunk.rows[place]
            whole = {name: row[name] for name in self._names} | dict(zip(self._new, values, strict=True))
            self._text.write(as_json(whole) + "\n")

    def close(self) -> None:
        """Write what is left."""
        self._text.close()
