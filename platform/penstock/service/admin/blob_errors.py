"""Blob errors: faults of the blob store that an API process met, added to the counts every few seconds."""

from __future__ import annotations

import structlog

from penstock.blobs import fault_tally
from penstock.domain.api_errors import Unavailable
from penstock.service.admin import tally
from penstock.service.core.periodic_writer import WRITE_SECONDS, PeriodicWriter
from penstock.service.core.transaction import AsyncDatabase

log = structlog.get_logger()


class BlobErrors(PeriodicWriter):
    """One process's, on one event loop; used with `async with`, whose end writes the last."""

    def __init__(self, db: AsyncDatabase, write_seconds: float = WRITE_SECONDS) -> None:
        super().__init__(write_seconds)
        self._db = db

    async def write(self) -> None:
        """Write what was met since the last time; while the database is away it waits for the next time."""
        if not (faults := fault_tally.take()):
            return
        try:
            await self._db.autocommit(tally.blob_errors, faults)
        except Unavailable as error:
            fault_tally.put_back(faults)
            log.warning("blob_errors_wait", error=error.message)
