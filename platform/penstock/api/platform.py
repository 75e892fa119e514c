"""What routes work with: the database, the blob store and the settings, chosen once at the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from penstock.api.body import Room
from penstock.blobs.store import Blobs
from penstock.service.call import Calls
from penstock.service.call_usage import CallUsage
from penstock.service.callers import Callers
from penstock.service.ends import Ends
from penstock.service.fleet import Fleet
from penstock.service.intake import Intake
from penstock.service.transaction import AsyncDatabase
from penstock.settings import Settings
from penstock.wire.outbound import Outbound


@dataclass(frozen=True)
class Platform:
    """The real things behind the routes."""

    db: AsyncDatabase
    blobs: Blobs
    settings: Settings
    room: Room
    callers: Callers
    intake: Intake
    ends: Ends
    fleet: Fleet
    calls: Calls
    call_usage: CallUsage
    outbound: Outbound


async def _platform(request: Request) -> Platform:  # async: FastAPI would send it to a thread, for each request
    return request.app.state.platform


Here = Annotated[Platform, Depends(_platform)]
