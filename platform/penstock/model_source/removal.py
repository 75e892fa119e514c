"""Removal: what Penstock's workers downloaded of a model is deleted again; only theirs, only in the hub's cache.

A worker that begins a download leaves a mark beside it. What others downloaded has none, and stays.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Final

from penstock.model_source.hub import ID, hub
from penstock.model_source.no_model import NoModel

_MARK: Final = ".downloaded-by-penstock"


def mark(repository: Path) -> None:
    """Note that a download into this folder of the cache is ours; a folder that can't be written has no mark."""
    try:
        repository.mkdir(parents=True, exist_ok=True)
        (repository / _MARK).touch()
    except OSError:
        return


def remove(source: str, still_used: Collection[str]) -> int:
    """Delete a model that a worker downloaded on this machine; the bytes that are free again.

    `still_used`: sources of versions that are not retired. Raises NoModel for what is no download of ours, or is used.
    """
    if Path(source).exists() or not ID.fullmatch(source):
        raise NoModel(f"{source} is no download: it stays.")
    if source in still_used:
        raise NoModel(f"Another version is made of {source}: it stays.")
    repository = hub(os.environ).repository(source)
    if not (repository / _MARK).is_file():
        raise NoModel(f"{source} was not downloaded by Penstock here (no {repository / _MARK}): it stays.")
    freed = sum(file.lstat().st_size for file in repository.rglob("*") if file.is_file() and not file.is_symlink())
    shutil.rmtree(repository)
    return freed
