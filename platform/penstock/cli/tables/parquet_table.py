"""Parquet, by pyarrow (the extra `data`): columns keep their own types from Parquet to Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from penstock.cli.tables.column import Column, ColumnKind, as_json, as_text
from penstock.cli.tables.input_table import CHUNK_ROWS, Chunk, InputTable, distinct
from penstock.cli.tables.table_format import TableFormat
from penstock.stack.problem import Problem

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    raise Problem("Parquet needs pyarrow, which is not installed: pip install 'penstock[data]'.") from None

_TYPES = {
    ColumnKind.TEXT: pa.string(),
    ColumnKind.INTEGER: pa.int64(),
    ColumnKind.NUMBER: pa.float64(),
    ColumnKind.BOOLEAN: pa.bool_(),
    ColumnKind.JSON: pa.string(),
}


class ParquetInput:
    """A Parquet file, read some rows at a time, whatever the size of its row groups."""

    format = TableFormat.PARQUET
    delimiter = None

    def __init__(self, file: Path, name: str) -> None:
        self._file = file
        self._name = name
        with self._opened() as parquet:
            self.arrow_schema = parquet.schema_arrow
            self.count: int = parquet.metadata.num_rows
        distinct(self.arrow_schema.names, name)
        self.columns = tuple(Column(field.name, _kind(field.type)) for field in self.arrow_schema)

    def chunks(self) -> Iterator[Chunk]:
        """All rows, from the first."""
        first = 0
        with self._opened() as parquet:
            try:
                for batch in parquet.iter_batches(batch_size=CHUNK_ROWS):
                    yield Chunk(first, _readable(batch).to_pylist(), batch)
                    first += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                raise Problem(f"{self._name} is damaged near row {first + 1}: {_line(error)}") from None

    def _opened(self) -> Any:
        try:
            return pq.ParquetFile(self._file)
        except pa.ArrowException as error:
            raise Problem(f"{self._name} is no Parquet file: {_line(error)}") from None
        except OSError as error:
            raise Problem(f"{self._name} can't be read: {error.strerror or _line(error)}.") from None


class ParquetOutput:
    """A Parquet file that is being written, a row group for each chunk's worth of a few thousand rows."""

    def __init__(self, file: Path, table: InputTable, new: Sequence[Column]) -> None:
        self._columns, self._new = table.columns, new
        kept = getattr(table, "arrow_schema", None)
        if kept is None:
            kept = pa.schema([pa.field(column.name, _TYPES[column.kind]) for column in table.columns])
        self._kept = kept
        self._schema = pa.schema(
            [*kept, *(pa.field(column.name, _TYPES[column.kind]) for column in new)], metadata=kept.metadata
        )
        self._writer = pq.ParquetWriter(file, self._schema)
        self._waiting: list[Any] = []

    def write(self, chunk: Chunk, kept: Sequence[int], new: Sequence[Sequence[Any]]) -> None:
        """Write the kept rows of a chunk, each with its values of the new columns."""
        if not kept:
            return
        if chunk.arrow is not None:
            old = chunk.arrow.take(pa.array(kept, pa.int64())).columns
        else:
            rows = [chunk.rows[place] for place in kept]
            old = [_array(column, [row[column.name] for row in rows]) for column in self._columns]
        added = [_array(column, list(values)) for column, values in zip(self._new, zip(*new, strict=True), strict=True)]
        self._waiting.append(pa.RecordBatch.from_arrays([*old, *added], schema=self._schema))
        if sum(batch.num_rows for batch in self._waiting) >= 16 * CHUNK_ROWS:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema))
        self._waiting = []


def _kind(type: Any) -> ColumnKind:
    if pa.types.is_boolean(type):
        return ColumnKind.BOOLEAN
    if pa.types.is_integer(type):
        return ColumnKind.INTEGER
    if pa.types.is_floating(type):
        return ColumnKind.NUMBER
    return ColumnKind.JSON if pa.types.is_nested(type) else ColumnKind.TEXT


def _readable(batch: Any) -> Any:
    """The batch for Python, which has no nanoseconds: they are cut to microseconds."""
    columns = []
    for column in batch.columns:
        type = column.type
        if pa.types.is_timestamp(type) and type.unit == "ns":
            column = column.cast(pa.timestamp("us", type.tz), safe=False)
        elif pa.types.is_time64(type) and type.unit == "ns":
            column = column.cast(pa.time64("us"), safe=False)
        elif pa.types.is_duration(type) and type.unit == "ns":
            column = column.cast(pa.duration("us"), safe=False)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _array(column: Column, values: list[Any]) -> Any:
    if column.kind is ColumnKind.JSON:
        values = [None if value is None else as_json(value) for value in values]
    elif column.kind is ColumnKind.TEXT:
        values = [None if value is None else _storable(as_text(value)) for value in values]
    return pa.array(values, _TYPES[column.kind])


def _storable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200]
