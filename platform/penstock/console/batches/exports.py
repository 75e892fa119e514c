"""Exports: the answers of an output file as a table, CSV or Parquet, a few lines of it in memory at a time."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from penstock.console import csv_export
from penstock.console.batches import answers
from penstock.domain.api_errors import TooLarge

_OWN: Final = ("custom_id", "status_code", "finish_reason", "input_tokens", "output_tokens", "answer")
_WHOLE: Final = frozenset({"status_code", "input_tokens", "output_tokens"})
"""Columns of whole numbers."""
_CHUNK_BYTES: Final = 1024 * 1024
_CHUNK_LINES: Final = 1_000
_MOST_PARQUET_BYTES: Final = 4 * 1024**3

Lines = Sequence[bytes]


class NoParquet(TooLarge):
    """The table is larger than this server's disk allows: take CSV or JSONL."""


class _Response(msgspec.Struct):
    status_code: int | None = None
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


class _Counted(msgspec.Struct):
    usage: _Usage | None = None


class _Line(msgspec.Struct):
    custom_id: str | None = None
    response: _Response | None = None


@dataclass(frozen=True)
class AnswerRow:
    """One line of the table."""

    own: tuple[str | int | None, ...]
    """As the columns that every table has."""
    answer: answers.LineAnswer

    def cells(self, keys: Sequence[str]) -> list[str | int | None]:
        """All its cells; `keys` are columns of answers that are JSON objects."""
        fields = self.answer.fields or {}
        return [*self.own, *(answers.cell(fields[key]) if key in fields else None for key in keys)]


def has_parquet() -> bool:
    """Whether pyarrow is installed here."""
    return find_spec("pyarrow") is not None


def row(line: bytes) -> AnswerRow:
    """What an output line says; of one that can't be read, the line itself is its answer."""
    try:
        found = msgspec.json.decode(line, type=_Line)
    except (msgspec.MsgspecError, RecursionError):
        found = _Line()
    response = found.response
    body = bytes(response.body) if response else line
    said = answers.read(body)
    # In a table the numbers themselves are wanted.
    text = body.decode("utf-8", "replace") if said.counted else said.text
    used = _usage(body)
    sent = used.prompt_tokens if used.prompt_tokens is not None else used.input_tokens
    written = used.completion_tokens if used.completion_tokens is not None else used.output_tokens
    status = response.status_code if response else None
    return AnswerRow((found.custom_id, status, said.finish_reason, sent, written, text), said)


async def chunks(pieces: AsyncIterator[bytes]) -> AsyncIterator[Lines]:
    """A file's lines, some at a time: about a MiB, or one that is longer."""
    rest, ready, size = bytearray(), [], 0
    async for piece in pieces:
        *whole, last = piece.split(b"\n")
        for part in whole:
            line = bytes(rest + part) if rest else part
            rest.clear()
            if line:
                ready.append(line)
                size += len(line)
            if size >= _CHUNK_BYTES or len(ready) >= _CHUNK_LINES:
                yield ready
                ready, size = [], 0
        rest += last
    if rest:
        ready.append(bytes(rest))
    if ready:
        yield ready


async def as_csv(lines: AsyncIterator[Lines]) -> AsyncIterator[bytes]:
    """The table as CSV (RFC 4180), with cells that no spreadsheet takes for a formula."""
    keys: tuple[str, ...] | None = None
    async for chunk in lines:
        rows = await asyncio.to_thread(_rows, chunk)
        if keys is None:
            keys = answers.columns(one.answer for one in rows)
            yield _csv([[*_OWN, *_named(keys)]])
        yield await asyncio.to_thread(_csv, [one.cells(keys) for one in rows])
    if keys is None:
        yield _csv([list(_OWN)])


async def as_parquet(
    lines: AsyncIterator[Lines], scratch: Path, left: Callable[[], Awaitable[bool]]
) -> IO[bytes] | None:
    """The table as a Parquet file that is gone once it is closed; None if whoever asked `left`. Raises NoParquet."""
    file: IO[bytes] = await asyncio.to_thread(tempfile.TemporaryFile, dir=scratch, prefix="penstock-parquet-")
    most = min(_MOST_PARQUET_BYTES, shutil.disk_usage(scratch).free // 2)
    table: _ParquetTable | None = None
    try:
        async for chunk in lines:
            if await left():
                file.close()
                return None
            rows = await asyncio.to_thread(_rows, chunk)
            if table is None:
                keys = answers.columns(one.answer for one in rows)
                table = await asyncio.to_thread(_ParquetTable, file, keys)
            await asyncio.to_thread(table.add, rows)
            if file.tell() > most:
                raise NoParquet
        if table is None:
            table = await asyncio.to_thread(_ParquetTable, file, ())
        await asyncio.to_thread(table.close)
    except BaseException:  # also where whoever asked has gone: nothing of it stays on the disk
        file.close()
        raise
    return file


async def read_out(file: IO[bytes]) -> AsyncIterator[bytes]:
    """A file from its beginning; it is closed behind that."""
    try:
        file.seek(0)
        while piece := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield piece
    finally:
        file.close()


class _ParquetTable:
    """A Parquet file that is being written, a group of rows a chunk."""

    def __init__(self, file: IO[bytes], keys: Sequence[str]) -> None:
        import pyarrow
        import pyarrow.parquet

        self._keys = keys
        self._arrow: Any = pyarrow
        names = [*_OWN, *_named(keys)]
        self._schema = pyarrow.schema(
            [(name, pyarrow.int64() if name in _WHOLE else pyarrow.string()) for name in names]
        )
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema)

    def add(self, rows: Sequence[AnswerRow]) -> None:
        """Write these behind the others."""
        columns = list(zip(*(one.cells(self._keys) for one in rows), strict=True))
        arrays = [self._arrow.array(one, kind.type) for one, kind in zip(columns, self._schema, strict=True)]
        self._writer.write_table(self._arrow.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        """Write its end; the file stays open."""
        self._writer.close()


def _rows(lines: Lines) -> list[AnswerRow]:
    return [row(line) for line in lines]


def _named(keys: Sequence[str]) -> list[str]:
    """Columns of an answer's keys, which may be called as the table's own."""
    return [f"answer.{key}" for key in keys]


def _csv(rows: Sequence[Sequence[str | int | None]]) -> bytes:
    return csv_export.lines(rows).encode("utf-8", "replace")


def _usage(body: bytes) -> _Usage:
    try:
        return msgspec.json.decode(body, type=_Counted).usage or _Usage()
    except (msgspec.MsgspecError, RecursionError):
        return _Usage()
