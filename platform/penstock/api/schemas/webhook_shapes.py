"""What webhook endpoints and deliveries look like on the wire: OpenAI's fields, and ours beside them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from penstock.api.schemas.shapes import time, unix
from penstock.domain.webhook import Attempt, Delivery, Endpoint
from penstock.formats import webhook


class EndpointShape(BaseModel):
    """Where events go."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str = Field(description="The end of the secret, to tell one from another.")
    created_at: int
    updated_at: int
    enabled: bool
    disabled_reason: Literal["by_hand", "gone"] | None = Field(description="`gone`: it answered 410.")
    batch_id: str | None = Field(description="The batch or job that it was made with, and whose events alone it gets.")


class EndpointWithSecret(EndpointShape):
    """The same, at the two moments at which its secret is told."""

    signing_secret: str = Field(description="`whsec_…`: it is not told again; rotate it if it is lost.")


class DeletedEndpoint(BaseModel):
    """Confirms a deletion."""

    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: bool = True


class TestResult(BaseModel):
    """What the endpoint answered to a sample event."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    success: Literal[True] = True
    status_code: int
    delivery_id: str = Field(description="Where it is in `/v1/webhook_deliveries`.")


class EventTypes(BaseModel):
    """All types of events."""

    object: Literal["list"] = "list"
    data: list[str]


class AttemptShape(BaseModel):
    """How one attempt went."""

    number: int
    at: int = Field(description="Unix seconds.")
    status_code: int | None = Field(description="Null if no answer came; `error` says why.")
    latency_ms: int
    answer: str | None = Field(description="The first bytes of the receiver's answer.")
    error: str | None


class DeliveryShape(BaseModel):
    """One event for one endpoint."""

    id: str
    object: Literal["webhook_delivery"] = "webhook_delivery"
    endpoint_id: str
    event_id: str = Field(description="The `webhook-id` of every attempt.")
    type: str
    batch_id: str
    test: bool = Field(description="Whether it is a sample, from `…/test`.")
    status: Literal["pending", "delivered", "failed"] = Field(
        description="`failed`: every attempt of the schedule failed, or its endpoint answered 410 or is disabled."
    )
    attempts: int
    next_attempt_at: int | None = Field(description="Unix seconds, of a pending one.")
    created_at: int
    ended_at: int | None
    payload: str = Field(description="What is sent, byte for byte; the signature comes anew with each attempt.")
    log: list[AttemptShape] = Field(description="Its attempts; in lists, the last one only.")


class Replayed(BaseModel):
    """How many deliveries are sent again."""

    object: Literal["webhook_deliveries.replayed"] = "webhook_deliveries.replayed"
    count: int
    has_more: bool = Field(description="Whether there may be more: then ask again.")


def endpoint(one: Endpoint) -> EndpointShape:
    """An endpoint's shape, without its secret."""
    return EndpointShape(**_endpoint(one))


def endpoint_with_secret(one: Endpoint) -> EndpointWithSecret:
    """An endpoint's shape with its secret: at its making and at a rotation, never later."""
    return EndpointWithSecret(**_endpoint(one), signing_secret=one.secret)


def _endpoint(one: Endpoint) -> dict[str, object]:
    return {
        "id": one.id,
        "name": one.name,
        "url": one.url,
        "event_types": list(one.event_types),
        "signing_secret_hint": f"whsec_…{one.sealed.hint}",
        "created_at": unix(one.created_at),
        "updated_at": unix(one.updated_at),
        "enabled": one.disabled_as is None,
        "disabled_reason": one.disabled_as,
        "batch_id": one.batch,
    }


def delivery(one: Delivery) -> DeliveryShape:
    """A delivery's shape."""
    return DeliveryShape(
        id=one.id,
        endpoint_id=one.endpoint,
        event_id=one.event,
        type=one.type,
        batch_id=one.object,
        test=one.test,
        status=one.state.value,
        attempts=one.attempts,
        next_attempt_at=time(one.next_at),
        created_at=unix(one.created_at),
        ended_at=time(one.ended_at),
        payload=webhook.event(one.event, one.type, one.object, one.happened_at).decode(),
        log=[_attempt(attempt) for attempt in one.log],
    )


def _attempt(one: Attempt) -> AttemptShape:
    return AttemptShape(
        number=one.number,
        at=unix(one.at),
        status_code=one.status,
        latency_ms=one.milliseconds,
        answer=None if one.answer is None else one.answer.decode(errors="replace"),
        error=one.error,
    )
