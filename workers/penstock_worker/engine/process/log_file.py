"""The engine's log file: what its processes print, kept to a size, and its end for whoever must be told why it died."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

_TAIL_BYTES: Final = 3_000
_MOST_BYTES: Final = 64 * 1024 * 1024
_START_BYTES: Final = 256 * 1024
_MOST_CAUSE: Final = 400
START: Final = "--- start "
"""How a line begins that says which engine's lines follow."""
# `ValueError: …` of a traceback, behind whatever a logger puts before it, and `….py: error: …` of a command line.
_ERROR: Final = re.compile(r"(?:^|\s)((?:[A-Za-z_][\w.]*(?:Error|Exception)|error): .+)")
# What vLLM's processes say of each other; the cause stands before it.
_OF_OTHERS: Final = re.compile(r"(?:Engine core|WorkerProc) initialization failed|See (?:root cause|stack trace)")


def tail(path: Path, most_bytes: int = _TAIL_BYTES) -> str:
    """The last lines of a log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - most_bytes))
            return file.read().decode(errors="replace").strip()
    except OSError as error:
        return f"(the log can't be read: {error.strerror})"


def cause(path: Path) -> str:
    """The last error that the engine that was started last told of itself, on one line; empty if it told none."""
    lines = tail(path, _START_BYTES).rpartition(START)[2].splitlines()
    errors = [found[1] for line in lines if (found := _ERROR.search(line)) and not _OF_OTHERS.search(line)]
    last = errors[-1].strip()[:_MOST_CAUSE] if errors else ""
    return "".join(filter(str.isprintable, last))  # Postgres takes no NUL, a terminal no escape


def turn_over(path: Path) -> None:
    """Keep one earlier log once this one is large."""
    with contextlib.suppress(OSError):
        if path.stat().st_size > _MOST_BYTES:
            os.replace(path, path.with_suffix(path.suffix + ".1"))
