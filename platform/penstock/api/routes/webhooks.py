"""`/v1/webhook_endpoints`: where events go, as OpenAI's SDK asks for them; and the webhook of one batch."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Final, Literal

import structlog
from fastapi import APIRouter, Request
from pydantic import Field

from penstock.api.auth import Acting, Tenant
from penstock.api.http import body
from penstock.api.http.body import Asked, Text
from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here, Platform
from penstock.api.schemas import webhook_shapes as shapes
from penstock.api.schemas.batch_webhook import BatchWebhook
from penstock.api.schemas.paging import After, Limit
from penstock.api.schemas.shapes import Page, page
from penstock.api.schemas.webhook_shapes import (
    DeletedEndpoint,
    EndpointShape,
    EndpointWithSecret,
    EventTypes,
    TestResult,
)
from penstock.domain.api_errors import BadRequest, OutboundRefused, Unavailable
from penstock.domain.webhook import EVENT_TYPES, DeliveryState, Endpoint, WebhookRequest, check_secret
from penstock.service.views.batch_view import BatchView
from penstock.service.webhooks import endpoints, webhook_queue

log = structlog.get_logger()

router = APIRouter(prefix="/v1", tags=["webhooks"], responses=DOCUMENTED)

_MAX_JSON_BYTES: Final = 64 * 1024

Name = Annotated[Text, Field(max_length=200)]


EventType = Literal[
    "batch.completed", "batch.failed", "batch.expired", "batch.cancelled", "budget.warning", "budget.spent"
]
SomeEvents = Annotated[list[EventType], Field(min_length=1, max_length=len(EVENT_TYPES))]


class CreateEndpoint(Asked):
    """A new endpoint."""

    url: Text = Field(description="https, unless the operator allows its network.")
    name: Name = Field("", description="For people.")
    event_types: SomeEvents = Field(
        ["batch.completed", "batch.failed", "batch.expired", "batch.cancelled", "budget.warning", "budget.spent"],
        description="What it wants to hear of; all, unless told.",
    )
    secret: Text | None = Field(None, description="Your own: `whsec_` and base64 of 24 to 64 bytes. Else one is made.")


class ChangeEndpoint(Asked):
    """What is to change; what is left out stays."""

    url: Text | None = None
    name: Name | None = None
    event_types: SomeEvents | None = None
    enabled: bool | None = Field(None, description="False gives up what is pending; true takes a `gone` back.")


class RotateSecret(Asked):
    """How to rotate."""

    keep_old_secret_active_for_24_hours: bool | None = Field(
        None, description="Sign with the old secret too, for a day. `rotate`: true unless told; `rotate_secret`: false."
    )


class TestEndpoint(Asked):
    """What to send."""

    event_type: EventType = "batch.completed"


BODIES: Final = (CreateEndpoint, ChangeEndpoint, RotateSecret, TestEndpoint)


@router.post("/webhook_endpoints", summary="Create a webhook endpoint", openapi_extra=body.documented(CreateEndpoint))
async def create_endpoint(request: Request, tenant: Tenant, here: Acting) -> EndpointWithSecret:
    """From now on, events go there too, signed as Standard Webhooks says. The secret is told in this answer only."""
    asked = body.check(CreateEndpoint, body.decode(await body.read(request, _MAX_JSON_BYTES)))
    secret = None if asked.secret is None else check_secret(asked.secret, "secret")
    await vet(here, asked.url, "url")
    made = await here.db.run(endpoints.create, tenant, asked.name, asked.url, asked.event_types, secret, here.settings)
    return shapes.endpoint_with_secret(made)


@router.get("/webhook_endpoints", summary="List webhook endpoints")
async def list_endpoints(tenant: Tenant, here: Here, after: After = None, limit: Limit = 20) -> Page[EndpointShape]:
    """Your endpoints, newest first. Those that were made with one batch are not among them."""
    found = await here.db.autocommit(endpoints.page, tenant, after=after, limit=limit + 1)
    return page([shapes.endpoint(one) for one in found], limit, EndpointShape)


@router.get("/webhook_event_types", summary="List the types of events")
async def list_event_types(tenant: Tenant) -> EventTypes:
    """What an endpoint can hear of."""
    return EventTypes(data=list(EVENT_TYPES))


@router.get("/webhook_endpoints/{endpoint_id}", summary="Look at a webhook endpoint")
async def get_endpoint(endpoint_id: str, tenant: Tenant, here: Here) -> EndpointShape:
    """An endpoint, one that was made with a batch included."""
    return shapes.endpoint(await here.db.autocommit(endpoints.get, tenant, endpoint_id))


@router.post(
    "/webhook_endpoints/{endpoint_id}",
    summary="Change a webhook endpoint",
    openapi_extra=body.documented(ChangeEndpoint),
)
async def change_endpoint(request: Request, endpoint_id: str, tenant: Tenant, here: Acting) -> EndpointShape:
    """Change url, name, events, or whether it is enabled: in force for what is still pending too."""
    asked = body.check(ChangeEndpoint, body.decode(await body.read(request, _MAX_JSON_BYTES)))
    if asked.url is not None:
        await vet(here, asked.url, "url")
    changed = await here.db.run(endpoints.change, tenant, endpoint_id, **asked.model_dump())
    return shapes.endpoint(changed)


@router.delete("/webhook_endpoints/{endpoint_id}", summary="Delete a webhook endpoint")
async def delete_endpoint(endpoint_id: str, tenant: Tenant, here: Acting) -> DeletedEndpoint:
    """Nothing more goes there, not even what is pending. Its deliveries stay in the log until they are old."""
    await here.db.run(endpoints.delete, tenant, endpoint_id)
    return DeletedEndpoint(id=endpoint_id)


@router.post(
    "/webhook_endpoints/{endpoint_id}/rotate",
    summary="Rotate a secret, signing with both for a day",
    openapi_extra=body.documented(RotateSecret, required=False),
)
async def rotate(request: Request, endpoint_id: str, tenant: Tenant, here: Acting) -> EndpointWithSecret:
    """A new secret, told in this answer only. For 24 hours there are two signatures, the new secret's first."""
    return await _rotate(request, endpoint_id, tenant, here, keep=True)


@router.post(
    "/webhook_endpoints/{endpoint_id}/rotate_secret",
    summary="Rotate a secret, the old one ending at once",
    openapi_extra=body.documented(RotateSecret, required=False),
)
async def rotate_secret(request: Request, endpoint_id: str, tenant: Tenant, here: Acting) -> EndpointWithSecret:
    """The same as `rotate` under OpenAI's name, and with OpenAI's default: the old secret signs nothing more."""
    return await _rotate(request, endpoint_id, tenant, here, keep=False)


async def _rotate(request: Request, endpoint: str, tenant: str, here: Platform, keep: bool) -> EndpointWithSecret:
    asked = await body.optional(RotateSecret, request, _MAX_JSON_BYTES)
    told = asked.keep_old_secret_active_for_24_hours
    rotated = await here.db.run(endpoints.rotate, tenant, endpoint, keep if told is None else told, here.settings)
    return shapes.endpoint_with_secret(rotated)


@router.post(
    "/webhook_endpoints/{endpoint_id}/test",
    summary="Test a webhook endpoint",
    openapi_extra=body.documented(TestEndpoint, required=False),
)
async def test_endpoint(request: Request, endpoint_id: str, tenant: Tenant, here: Here) -> TestResult:
    """Send one sample event the way real ones go, once, and tell what the endpoint answered.

    400 (`endpoint_unreachable`) if it gave no answer, 503 if no io worker was there to send it.
    """
    asked = await body.optional(TestEndpoint, request, _MAX_JSON_BYTES)
    id = await here.db.run(webhook_queue.test, tenant, endpoint_id, asked.event_type)
    tested = await webhook_queue.until_over(here.db, tenant, id, here.settings.webhook_timeout_seconds + 5)
    if tested.state is DeliveryState.PENDING:
        raise Unavailable("No io worker has sent it yet; look at /v1/webhook_deliveries for what comes of it.")
    last = tested.log[-1] if tested.log else None
    if last is None or last.status is None:
        why = (last.error if last else None) or "it was given up"
        raise BadRequest(f"The endpoint gave no answer: {why}", code="endpoint_unreachable")
    return TestResult(
        webhook_endpoint_id=endpoint_id, event_type=asked.event_type, status_code=last.status, delivery_id=id
    )


async def vet(here: Platform, url: str, param: str) -> None:
    """Raise OutboundRefused if nothing may be sent there."""
    try:
        await here.outbound.vet(url)
    except OutboundRefused as error:
        log.info("url_refused", reason=error.reason)
        raise OutboundRefused(error.reason, told=error.told, param=param) from None


async def wished(here: Platform, asked: BatchWebhook | None) -> WebhookRequest | None:
    """The webhook of a batch that is about to be made; raise BadRequest if it can't be."""
    if asked is None:
        return None
    wish = asked.wish(here.settings)
    await vet(here, asked.url, "webhook.url")
    return wish


async def seen(here: Platform, tenant: str, view: BatchView, wish: WebhookRequest | None) -> BatchView:
    """A batch that was just made, with its webhook; and with the secret, if we made that for it just now."""
    if wish is None:
        return view
    endpoint: Endpoint | None = await here.db.autocommit(endpoints.of_batch, tenant, view.batch.id)
    # A create that is repeated under its key has made another secret meanwhile, which signs nothing.
    new = endpoint is not None and wish.made and endpoint.sealed == wish.sealed
    return dataclasses.replace(view, webhook=endpoint, secret=wish.secret if new else None)
