"""What routes work with: the database, the blob store and the settings, chosen once at the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from penstock.api.http.body import Room
from penstock.blobs.readiness import BlobReadiness
from penstock.blobs.store import Blobs
from penstock.service.calls.api_key_cache import ApiKeyCache
from penstock.service.calls.call import Calls
from penstock.service.calls.call_tally import CallTally
from penstock.service.calls.gathered.gathered_call import GatheredCalls
from penstock.service.calls.key_uses import KeyUses
from penstock.service.calls.worker_directory import WorkerDirectory
from penstock.service.core.transaction import AsyncDatabase
from penstock.service.intake.small_job_intake import SmallJobIntake
from penstock.service.limits.limiter import Limiter
from penstock.service.views.batch_watch import BatchWatch
from penstock.service.views.completion_waiter import CompletionWaiter
from penstock.settings import Settings
from penstock.wire.outbound import Outbound


@dataclass(frozen=True)
class Platform:
    """The real things behind the routes."""

    db: AsyncDatabase
    blobs: Blobs
    blob_readiness: BlobReadiness
    settings: Settings
    room: Room
    key_cache: ApiKeyCache
    limiter: Limiter
    key_uses: KeyUses
    intake: SmallJobIntake
    completion_waiter: CompletionWaiter
    batch_watch: BatchWatch
    directory: WorkerDirectory
    calls: Calls
    gathered_calls: GatheredCalls
    call_tally: CallTally
    outbound: Outbound


async def _platform(request: Request) -> Platform:  # async: FastAPI would send it to a thread, for each request
    platform: Platform = request.app.state.platform
    return platform


Here = Annotated[Platform, Depends(_platform)]
