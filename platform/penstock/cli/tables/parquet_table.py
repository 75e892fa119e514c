"""Parquet, by pyarrow (the extra `data`): columns keep their own types from Parquet to Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from penstock.cli.tables.column import Column, ColumnKind, as_json, as_text, storable
from penstock.cli.tables.input_table import CHUNK_ROWS, Chunk, InputTable, Row, distinct
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
                    yield Chunk(first, _rows(batch, self._name), batch)
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
            old = [_taken(column, kept) for column in chunk.arrow.columns]
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


def _rows(batch: Any, name: str) -> list[Row]:
    """The rows for Python."""
    columns = [_cells(column, field, name) for column, field in zip(batch.columns, batch.schema.names, strict=True)]
    return [dict(zip(batch.schema.names, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _cells(column: Any, field: str, name: str) -> list[Any]:
    """A column for Python, which has no nanoseconds (they are cut off), and no time that its calendar has not.

    Of a column with such a time, or with a time zone that nobody knows, times are the numbers that Parquet has.
    """
    for kind in (_without_nanoseconds(column.type), _without_times(column.type)):
        try:
            cells: list[Any] = (column if kind == column.type else column.cast(kind, safe=False)).to_pylist()
            return cells
        # pyarrow and the calendar raise what they like: no ArrowException is common to them.
        except Exception as error:
            why = error
    raise Problem(f"{name} has a column {field!r} that can't be read ({column.type}): {_line(why)}")


def _without_nanoseconds(type: Any) -> Any:
    if pa.types.is_timestamp(type) and type.unit == "ns":
        return pa.timestamp("us", type.tz)
    if pa.types.is_time64(type) and type.unit == "ns":
        return pa.time64("us")
    if pa.types.is_duration(type) and type.unit == "ns":
        return pa.duration("us")
    return _inside(type, _without_nanoseconds)


def _without_times(type: Any) -> Any:
    if pa.types.is_date32(type) or pa.types.is_time32(type):
        return pa.int32()
    if pa.types.is_temporal(type) and not pa.types.is_interval(type):
        return pa.int64()
    return _inside(type, _without_times)


def _inside(type: Any, change: Callable[[Any], Any]) -> Any:
    """A type with what it is made of changed."""
    if pa.types.is_struct(type):
        return pa.struct([field.with_type(change(field.type)) for field in type])
    if pa.types.is_map(type):
        return pa.map_(change(type.key_type), change(type.item_type))
    if pa.types.is_fixed_size_list(type):
        return pa.list_(change(type.value_type), type.list_size)
    if pa.types.is_large_list(type):
        return pa.large_list(change(type.value_type))
    if pa.types.is_list(type):
        return pa.list_(change(type.value_type))
    if pa.types.is_dictionary(type) and (value := change(type.value_type)) != type.value_type:
        return value
    return type


def _taken(column: Any, kept: Sequence[int]) -> Any:
    """These cells of a column; `take` does not know all types."""
    try:
        return column.take(pa.array(kept, pa.int64()))
    except pa.ArrowNotImplementedError:
        return pa.concat_arrays([column.slice(place, 1) for place in kept])


def _array(column: Column, values: list[Any]) -> Any:
    if column.kind is ColumnKind.JSON:
        values = [None if value is None else as_json(value) for value in values]
    elif column.kind is ColumnKind.TEXT:
        values = [None if value is None else storable(as_text(value)) for value in values]
    elif column.kind is ColumnKind.NUMBER:
        values = [None if value is None else float(value) for value in values]  # a large whole one is the nearest
    return pa.array(values, _TYPES[column.kind])


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200]
