"""A host's place: one host of a pool in a runtime folder, and what the one before it there left is cleared away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from penstock_worker.engine.process import process_record
from penstock_worker.pool.member_launch import mark
from penstock_worker.pool.member_set import kill_leftovers


class PlaceTaken(Exception):
    """Another living host of this pool has this runtime folder."""


class HostPlace:
    """The place, while it is held."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def earlier(self) -> UUID | None:
        """The host that was here before and could not say that it ends; it has ended, since the place was free."""
        try:
            return UUID(self._path.read_text().strip())
        except (OSError, ValueError):
            return None

    def take(self, host: UUID) -> None:
        """This host is here now."""
        self._path.write_text(str(host))

    def leave(self) -> None:
        """It has said that it ends."""
        self._path.unlink(missing_ok=True)


@contextmanager
def held(pool: str, runtime_dir: Path) -> Iterator[HostPlace]:
    """Be the only host of this pool here; nothing of an earlier one lives then. Raises PlaceTaken."""
    runtime_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = runtime_dir / f"pool-{mark(pool)}"
    try:
        owner = process_record.sole_owner(path.with_suffix(".lock"))
        with owner:
            kill_leftovers(pool, runtime_dir)
            yield HostPlace(path.with_suffix(".host"))
    except process_record.InUse:
        raise PlaceTaken(
            f"Another host of pool {pool} runs in {runtime_dir}: give each its own PENSTOCK_RUNTIME_DIR."
        ) from None
