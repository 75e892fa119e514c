"""The engine's log file: what its processes print, kept to a size, and its end for whoever must be told why it died."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

_TAIL_BYTES: Final = 3_000
_MOST_BYTES: Final = 64 * 1024 * 1024


def tail(path: Path, most_bytes: int = _TAIL_BYTES) -> str:
    """The last lines of a log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - most_bytes))
            return file.read().decode(errors="replace").strip()
    except OSError as error:
        return f"(the log can't be read: {error.strerror})"


def turn_over(path: Path) -> None:
    """Keep one earlier log once this one is large."""
    with contextlib.suppress(OSError):
        if path.stat().st_size > _MOST_BYTES:
            os.replace(path, path.with_suffix(path.suffix + ".1"))
