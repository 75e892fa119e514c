"""Whether the blob store works: it takes a blob, gives it back and deletes it. Tried now and then, and remembered.

A look at a key that is not there says yes for a bucket that is not there either, and for one that may only be read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final
from uuid import uuid4

import structlog

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import PenstockError
from penstock.domain.single_flight import SingleFlight

log = structlog.get_logger()

_GOOD_SECONDS: Final = 15.0
_BAD_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 2.0
"""A store that says nothing for so long is away, for whoever asks whether this process may get requests."""


async def fault(blobs: Blobs, key: str, patience_seconds: float) -> str | None:
    """Why the store does not take a blob under this key, give it back and delete it in time; None if it does."""
    try:
        async with asyncio.timeout(patience_seconds):
            await blobs.try_out(key)
    except TimeoutError:
        return f"it says nothing for {patience_seconds:g} s"
    except PenstockError as error:
        return str(error.__cause__ or error)
    return None


class BlobReadiness:
    """One process's, on its event loop."""

    def __init__(self, blobs: Blobs, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._blobs = blobs
        self._clock = clock
        self._key = f"ready/{uuid4().hex}"
        """One a process: what a death leaves of a trial is one blob of a few bytes."""
        self._tried_at = float("-inf")
        self._fault: str | None = None
        self._trying: SingleFlight[str, None] = SingleFlight()

    async def good(self) -> bool:
        """Whether it worked when it was tried last, some seconds ago at most; the cause is logged when it changes."""
        fresh = _BAD_SECONDS if self._fault else _GOOD_SECONDS
        if self._clock() - self._tried_at > fresh:
            await self._trying.ask(self._key, self._try)
        return self._fault is None

    async def _try(self) -> None:
        before = self._fault
        self._fault = await fault(self._blobs, self._key, _PATIENCE_SECONDS)
        self._tried_at = self._clock()
        if self._fault and self._fault != before:
            log.error("blob_store_away", error=self._fault)
        elif before and not self._fault:
            log.info("blob_store_back")
