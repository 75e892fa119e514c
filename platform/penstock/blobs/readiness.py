"""Whether the blob store works: it takes a blob, gives it back and deletes it. Tried now and then, and remembered.

Between two trials a look at a key that is not there sees within three seconds whether the store says anything at all.
It says no more than that: a bucket that is not there either, and one that may only be read, look the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import uuid4

import structlog

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import PenstockError
from penstock.domain.single_flight import SingleFlight

log = structlog.get_logger()

_TRIAL_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 2.0
"""A store that says nothing for so long is away, for whoever asks whether this process may get requests."""


async def fault(trial: Awaitable[None], patience_seconds: float) -> BaseException | None:
    """Why a store does not pass a trial of `Blobs` in time; None if it does."""
    try:
        async with asyncio.timeout(patience_seconds):
            await trial
    except TimeoutError:
        return TimeoutError(f"it says nothing for {patience_seconds:g} s")
    except PenstockError as error:
        return error.__cause__ or error
    return None


class BlobReadiness:
    """One process's, on its event loop."""

    def __init__(self, blobs: Blobs, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._blobs = blobs
        self._clock = clock
        self._key = f"ready/{uuid4().hex}"
        """One a process: what a death leaves of a trial is one blob of a few bytes."""
        self._tried_at = self._looked_at = float("-inf")
        self._fault: type[BaseException] | None = None
        """Its kind: an object store says no two times the same, for each answer names its own request and time."""
        self._trying: SingleFlight[str, None] = SingleFlight()

    async def good(self) -> bool:
        """Whether it worked half a second ago at most; the cause is logged when it is another kind of fault."""
        if self._clock() - self._looked_at > _LOOK_SECONDS:
            await self._trying.ask(self._key, self._try)
        return self._fault is None

    async def _try(self) -> None:
        before = self._fault
        whole = before is not None or self._clock() - self._tried_at > _TRIAL_SECONDS
        how = self._blobs.try_out if whole else self._blobs.look
        cause = await fault(how(self._key), _PATIENCE_SECONDS)
        self._fault = type(cause) if cause else None
        self._looked_at = self._clock()
        if whole:
            self._tried_at = self._looked_at
        if cause and self._fault is not before:
            log.error("blob_store_away", error=str(cause))
        elif before and not cause:
            log.info("blob_store_back")
