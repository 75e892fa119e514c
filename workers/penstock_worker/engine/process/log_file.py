"""The engine's log file: what its processes print, kept to a size, and its end for whoever must be told why it died."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

from penstock_worker.engine.launch_spec import FINAL_STATUS

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

# Pydantic's, of a config of vLLM's: `1 validation error for ModelConfig`, then its field, if any, and what is wrong.
_OF_CONFIG: Final = re.compile(r"ValidationError: \d+ validation errors? for (\w+)")
_LOGGED: Final = re.compile(r"^\([^)]*\) (?:[A-Z]+ [\d:. -]+ \[[^\]]*\] ?)?")
_COMES_BACK: Final = re.compile(r"\w*Config: |(?:[\w.]*\.)?(?:SafetensorError|ModuleNotFoundError|ImportError): ")
_MAY_PASS: Final = re.compile(r"connect|network|timed? ?out|HTTP|rate limit|memory", re.IGNORECASE)


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
    errors = [
        _told(found[1], lines[number + 1 :])
        for number, line in enumerate(lines)
        if (found := _ERROR.search(line)) and not _OF_OTHERS.search(line)
    ]
    last = errors[-1].strip() if errors else ""
    last = last if len(last) <= _MOST_CAUSE else last[: _MOST_CAUSE - 1] + "…"
    return "".join(filter(str.isprintable, last))  # Postgres takes no NUL, a terminal no escape


def comes_back(cause: str, status: int) -> bool:
    """Whether every start would end so: an argument that is none, or a config or weights that can't be read.

    What the hub or a full GPU did to it may be better next time.
    """
    if status == FINAL_STATUS:
        return True
    if _MAY_PASS.search(cause):
        return False
    return (status == 2 and cause.startswith("error: ")) or _COMES_BACK.match(cause) is not None


def _told(error: str, after: list[str]) -> str:
    """The error; of a config's, whose own line only counts, what it is about, from the lines after it."""
    if not (found := _OF_CONFIG.search(error)):
        return error
    details = [_LOGGED.sub("", line).strip() for line in after[:3]]
    until = next((n for n, line in enumerate(details) if line.startswith("For further information")), len(details))
    words = ": ".join(details[:until]).partition(" [type=")[0].replace("Value error, ", "")
    return f"{found[1]}: {words}"


def turn_over(path: Path) -> None:
    """Keep one earlier log once this one is large."""
    with contextlib.suppress(OSError):
        if path.stat().st_size > _MOST_BYTES:
            os.replace(path, path.with_suffix(path.suffix + ".1"))
