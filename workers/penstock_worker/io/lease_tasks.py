"""Lease tasks: what the io worker's tasks have in common that hold a lease while they work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from penstock.blobs.store import Blobs
from penstock.domain.work.holder import Holder
from penstock.service.core.transaction import Database
from penstock.settings import Settings
from penstock_worker.runtime.beat import Beat
from penstock_worker.runtime.patience import insist

R = TypeVar("R")

MOST_ATTEMPTS: Final = 3
"""So often a piece of work is taken that kills whoever has it."""


class LeaseTasks:
    """What they need in this process."""

    def __init__(self, db: Database, blobs: Blobs, beat: Beat, holder: Holder, settings: Settings) -> None:
        self._db = db
        self._blobs = blobs
        self._beat = beat
        self._holder = holder
        self._settings = settings

    def _insist(self, call: Callable[[], R]) -> R:
        return insist(call, self._beat, self._settings.close_grace_seconds)
