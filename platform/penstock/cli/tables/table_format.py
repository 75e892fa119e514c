"""Formats of tables: by a file's extension, or by name where it has none."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Final

from penstock.stack.problem import Problem


class TableFormat(StrEnum):
    """How a table is kept in a file."""

    CSV = "csv"
    TSV = "tsv"
    JSONL = "jsonl"
    PARQUET = "parquet"


_BY_EXTENSION: Final = {
    ".csv": TableFormat.CSV,
    ".tsv": TableFormat.TSV,
    ".tab": TableFormat.TSV,
    ".jsonl": TableFormat.JSONL,
    ".ndjson": TableFormat.JSONL,
    ".parquet": TableFormat.PARQUET,
    ".pq": TableFormat.PARQUET,
}


def format_of(file: Path, told: TableFormat | None = None) -> TableFormat:
    """The format that is told, else the extension's; raise Problem if neither says it."""
    if told:
        return told
    found = _BY_EXTENSION.get(file.suffix.lower())
    if found is None:
        known = ", ".join(extension for extension in _BY_EXTENSION)
        what = f"has the extension {file.suffix!r}" if file.suffix else "has no extension"
        raise Problem(f"{file} {what}: a table is one of {known}.")
    return found
