"""Scratch: local disk for a while; checked before it is used, so that a full disk is an answer and not an accident."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.blobs.store import is_full
from penstock.domain.errors import NoSpace

RESERVE_BYTES = 64 * 1024 * 1024


def check(folder: Path, wanted_bytes: int) -> None:
    """Raise NoSpace unless so many bytes fit and a reserve stays free."""
    if shutil.disk_usage(folder).free < wanted_bytes + RESERVE_BYTES:
        raise NoSpace(f"Scratch needs {wanted_bytes} bytes more than the disk has to spare.")


@contextmanager
def folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder that goes away afterwards; raise NoSpace if the disk fills up meanwhile all the same."""
    try:
        with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as name:
            yield Path(name)
    except OSError as error:
        if is_full(error):
            raise NoSpace("Scratch is full.") from error
        raise
