"""Scratch: local disk for a while; checked before it is used, so that a full disk is an answer and not an accident.

A folder is locked while its process lives. The kernel lets go of the lock however the process ends, and whoever makes
the next folder removes those that a killed process left behind.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from penstock.blobs.store import is_full
from penstock.domain.api_errors import NoSpace

RESERVE_BYTES = 64 * 1024 * 1024
_OURS: Final = "penstock-scratch-"


def check(folder: Path, wanted_bytes: int) -> None:
    """Raise NoSpace unless so many bytes fit and a reserve stays free."""
    if shutil.disk_usage(folder).free < wanted_bytes + RESERVE_BYTES:
        raise NoSpace(f"Scratch needs {wanted_bytes} bytes more than the disk has to spare.")


@contextmanager
def folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder that goes away afterwards; raise NoSpace if the disk fills up meanwhile all the same."""
    clear(parent)
    try:
        made = Path(tempfile.mkdtemp(prefix=f".{_OURS}", dir=parent))
        with _locked(made):
            # It gets the name that others look for once it is locked.
            mine = made.rename(parent / f"{_OURS}{prefix}{made.name.removeprefix(f'.{_OURS}')}")
            try:
                yield mine
            finally:
                shutil.rmtree(mine, ignore_errors=True)
    except OSError as error:
        if is_full(error):
            raise NoSpace("Scratch is full.") from error
        raise


def clear(parent: Path) -> None:
    """Remove the folders of processes that are dead."""
    for left in parent.glob(f"{_OURS}*"):
        with suppress(OSError), _locked(left):  # its owner lives, or it is gone meanwhile, or somebody else's
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; raise BlockingIOError if somebody else does."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)
