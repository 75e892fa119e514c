"""Text files of people: UTF-8 with a BOM or without, and one line that says so if it is something else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from penstock.stack.problem import Problem


@contextmanager
def opened_text(file: Path, name: str) -> Iterator[TextIO]:
    """The file for reading, line breaks as they are; raise Problem if it is not there, or not UTF-8.

    name: what people call it.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            yield text
    except UnicodeDecodeError:
        save = f"save it as UTF-8, e.g. iconv -f WINDOWS-1252 -t UTF-8 {name}"
        raise Problem(f"{name} is not text in UTF-8: {save}.") from None
    except OSError as error:
        raise Problem(f"{name} can't be read: {error.strerror}.") from None


def whole_text(file: Path) -> str:
    """All of a small file; raise Problem."""
    with opened_text(file, str(file)) as text:
        return text.read()
