"""CSV export: RFC 4180 in UTF-8, whose cells no spreadsheet takes for a formula (OWASP, CSV Injection)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def written(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A whole table; a text that would begin a formula has an apostrophe before it."""
    return lines([heads]) + lines(rows)


def lines(rows: Iterable[Sequence[object]]) -> str:
    """Some lines of one, likewise."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([safe(cell) for cell in row] for row in rows)
    return text.getvalue()


def safe(cell: object) -> object:
    """A cell that is no formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip(" ").startswith(_FORMULAS) else cell
