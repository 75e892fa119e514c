"""A download: how much of a model has come from the hub, and whether the disk has room for the rest."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock.model_source.no_model import NoModel

_MB: Final = 1_000_000


@dataclass(frozen=True)
class Download:
    """One model that an engine fetches when it starts."""

    id: str
    blobs: Path
    """Where its files grow."""
    total_bytes: int | None
    """None: the hub did not say."""

    @property
    def done_bytes(self) -> int:
        """What is on the disk by now; a file that is set aside in advance counts by what was written of it."""
        try:
            stats = [file.stat() for file in self.blobs.iterdir()]
        except OSError:
            return 0
        return sum(min(stat.st_size, stat.st_blocks * 512) for stat in stats)

    def check_room(self) -> None:
        """Raise NoModel if the rest does not fit on the disk."""
        if self.total_bytes is None:
            return
        place = next(folder for folder in (self.blobs, *self.blobs.parents) if folder.exists())
        rest, free = self.total_bytes - self.done_bytes, shutil.disk_usage(place).free
        if rest > free:
            raise NoModel(
                f"{self.id} does not fit: {in_words(rest)} are to come, and {in_words(free)} are free in {place}. Make "
                "room there, or set HF_HOME to a folder on a larger disk."
            )

    def words(self) -> str | None:
        """How far it is, for a person; None if nothing is left to come, as far as is known."""
        done = self.done_bytes
        if self.total_bytes is None:
            return f"downloading {self.id}: {in_words(done)} so far" if done else None
        if done >= self.total_bytes:
            return None
        share = 100 * done // self.total_bytes
        return f"downloading {self.id}: {in_words(done)} of {in_words(self.total_bytes)}, {share} %"


def in_words(count: int) -> str:
    """Bytes as people read them: 16.1 GB, 340 MB."""
    return f"{count / 1_000 / _MB:.1f} GB" if count >= 1_000 * _MB else f"{count / _MB:.0f} MB"
