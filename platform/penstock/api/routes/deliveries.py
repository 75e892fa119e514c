"""`/v1/webhook_deliveries`: what was sent where, how it went, and once more by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field

from penstock.api.auth import Tenant
from penstock.api.http import body
from penstock.api.http.body import Asked, Text
from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here
from penstock.api.schemas import webhook_shapes
from penstock.api.schemas.paging import After, Limit
from penstock.api.schemas.shapes import Page, page
from penstock.api.schemas.webhook_shapes import DeliveryShape, Replayed
from penstock.domain.webhook import DeliveryState
from penstock.service.webhooks import webhook_queue

router = APIRouter(prefix="/v1/webhook_deliveries", tags=["webhooks"], responses=DOCUMENTED)

_MAX_JSON_BYTES: Final = 64 * 1024

Status = Literal["pending", "delivered", "failed"]
Unix = Annotated[int, Field(ge=0, le=253_402_300_799)]
_Id = Annotated[str | None, Query(max_length=200)]


class ReplayDeliveries(Asked):
    """Which deliveries are to be sent again: those of which all that is given is so."""

    status: Literal["delivered", "failed"] = Field("failed", description="What is pending comes by itself.")
    endpoint_id: Text | None = None
    batch: Text | None = Field(None, description="A batch's id, or a job's.")
    event: Text | None = Field(None, description="An event's id.")
    created_after: Unix | None = Field(None, description="Unix seconds: not before it.")
    created_before: Unix | None = Field(None, description="Unix seconds: before it.")


BODIES: Final = (ReplayDeliveries,)


@router.get("", summary="List deliveries")
async def list_deliveries(
    tenant: Tenant,
    here: Here,
    batch: _Id = None,
    event: _Id = None,
    endpoint: _Id = None,
    status: Status | None = None,
    after: After = None,
    limit: Limit = 20,
) -> Page[DeliveryShape]:
    """Your deliveries, newest first, each with its last attempt: of a batch or job, an event, an endpoint, a status."""
    found = await here.db.autocommit(
        webhook_queue.page,
        tenant,
        after=after,
        limit=limit + 1,
        endpoint=endpoint,
        batch=batch,
        event=event,
        state=DeliveryState(status) if status else None,
    )
    return page([webhook_shapes.delivery(one) for one in found], limit, DeliveryShape)


@router.get("/{delivery_id}", summary="Look at a delivery")
async def get_delivery(delivery_id: str, tenant: Tenant, here: Here) -> DeliveryShape:
    """A delivery with all its attempts: status, latency and the first bytes of each answer."""
    return webhook_shapes.delivery(await here.db.autocommit(webhook_queue.get, tenant, delivery_id))


@router.post("/replay", summary="Send many deliveries again", openapi_extra=body.documented(ReplayDeliveries))
async def replay_deliveries(request: Request, tenant: Tenant, here: Here) -> Replayed:
    """Send again what failed (or was delivered), each under its `webhook-id`; 10,000 of them at most in one call.

    A body is needed: `{}` is all that failed.
    """
    asked = body.check(ReplayDeliveries, body.decode(await body.read(request, _MAX_JSON_BYTES)))
    count = await here.db.run(
        webhook_queue.replay_all,
        tenant,
        endpoint=asked.endpoint_id,
        batch=asked.batch,
        event=asked.event,
        state=DeliveryState(asked.status),
        since=_moment(asked.created_after),
        until=_moment(asked.created_before),
    )
    return Replayed(count=count, has_more=count == webhook_queue.MOST_REPLAYED)


@router.post("/{delivery_id}/replay", summary="Send a delivery again")
async def replay_delivery(delivery_id: str, tenant: Tenant, here: Here) -> DeliveryShape:
    """Send an event that was delivered or failed again, under its `webhook-id`, with the whole schedule before it.

    409 while it is pending, and if its endpoint is disabled or deleted.
    """
    return webhook_shapes.delivery(await here.db.run(webhook_queue.replay, tenant, delivery_id))


def _moment(unix: int | None) -> datetime | None:
    return None if unix is None else datetime.fromtimestamp(unix, UTC)
