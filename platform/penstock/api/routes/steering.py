"""Steering over HTTP: pause, resume and change, the same for batches and jobs."""

from __future__ import annotations

from typing import Final

from fastapi import Request
from pydantic import Field

from penstock.api.http import body
from penstock.api.http.body import Asked, Text
from penstock.api.platform import Platform
from penstock.api.schemas.terms import LaneName, Metadata
from penstock.domain.work.lane import Lane
from penstock.service.control import steer
from penstock.service.views import batch_view
from penstock.service.views.batch_view import BatchView

_MAX_JSON_BYTES: Final = 256 * 1024


class Change(Asked):
    """New terms of an open batch or job; what is left out (or null) stays as it is."""

    lane: LaneName | None = Field(None, description="How urgent it is from now on; what runs already goes on.")
    completion_window: Text | None = Field(
        None, description="A new deadline: `<n>m`, `<n>h` or `<n>d`, counted from the creation; not in the past."
    )
    metadata: Metadata | None = Field(None, description="Replaces all pairs; it chooses no lane here.")


async def pause(here: Platform, tenant: str, kind: str, id: str) -> BatchView:
    """Pause it; how it stands then."""
    await here.db.run(steer.pause, tenant, kind, id)
    return await here.db.autocommit(batch_view.view, tenant, kind, id, here.settings)


async def resume(here: Platform, tenant: str, kind: str, id: str) -> BatchView:
    """Resume it; how it stands then."""
    await here.db.run(steer.resume, tenant, kind, id, here.settings)
    return await here.db.autocommit(batch_view.view, tenant, kind, id, here.settings)


async def change(request: Request, here: Platform, tenant: str, kind: str, id: str) -> BatchView:
    """Change its terms as the body says; how it stands then."""
    asked = body.check(Change, body.decode(await body.read(request, _MAX_JSON_BYTES)))
    await here.db.run(
        steer.change,
        tenant,
        kind,
        id,
        here.settings,
        lane=Lane(asked.lane) if asked.lane else None,
        completion_window=asked.completion_window,
        metadata=asked.metadata,
    )
    return await here.db.autocommit(batch_view.view, tenant, kind, id, here.settings)
