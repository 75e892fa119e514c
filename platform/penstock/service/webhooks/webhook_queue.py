"""The webhook queue: an event goes to every endpoint that wants it, at least once under one id; debts are rows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from penstock.domain.api_errors import Conflict, NotFound
from penstock.domain.webhook import AttemptOutcome, Delivery, DeliveryState, Due
from penstock.domain.work import hint
from penstock.service.core import cursor
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.settings.webhooks import WebhookSettings
from penstock.store import deliveries, webhooks
from penstock.store.cursors import Listed
from penstock.store.work import counts

_MOST_NAMED: Final = 5

_LOOK_AGAIN_SECONDS: Final = 0.1

NO_ANSWER: Final = "no answer: the address was not reached, or nothing may be sent there"
"""The one word on all that is refused, does not resolve, or fails within the operator's networks; the log says more."""

NO_SECRET: Final = "the endpoint's secret can't be read at the moment: rotate it, or ask the platform's operator"
"""Why an attempt sent nothing. A tenant reads these in the delivery's log."""

TEST_BATCH: Final = "batch_test"
"""What a sample event is about."""

MOST_REPLAYED: Final = 10_000
"""Deliveries that one call replays at most."""


def owe(tx: Transaction, events: Sequence[str]) -> None:
    """Owe events to all who want to hear of them, in the transaction in which they happen."""
    for batch in sorted(deliveries.owe(tx.conn, events)):
        tx.hint(hint.deliver(batch))


def test(tx: Transaction, tenant: str, endpoint: str, type: str) -> str:
    """Owe a test event to one endpoint: the id of its delivery. Raises NotFound or Conflict."""
    found = webhooks.get(tx.conn, tenant, endpoint)
    if found is None:
        raise NotFound("webhook endpoint", endpoint)
    if found.disabled_as is not None:
        raise Conflict("disabled", "tested", "The endpoint is disabled: enable it first.")
    if deliveries.is_tested(tx.conn, endpoint):
        raise Conflict("tested", "tested again", "A test of this endpoint is under way.")
    id = fresh("dlv_")
    deliveries.insert_test(tx.conn, tenant, id=id, endpoint=endpoint, event=fresh("evt_"), type=type, object=TEST_BATCH)
    tx.hint(hint.deliver(TEST_BATCH))
    return id


def claim(
    tx: Transaction,
    limit: int,
    rooms: Mapping[str, int],
    tenant_rooms: Mapping[str, int],
    settings: WebhookSettings,
) -> list[Due]:
    """Take due deliveries; nobody else tries them while the attempt may last."""
    return deliveries.claim(
        tx.conn,
        limit=limit,
        each=settings.webhook_receiver_concurrency,
        each_tenant=settings.webhook_tenant_concurrency,
        rooms=rooms,
        tenant_rooms=tenant_rooms,
        lease=timedelta(seconds=2 * settings.webhook_timeout_seconds),
    )


def record(tx: Transaction, told: Sequence[AttemptOutcome], gone: Sequence[tuple[str, str]]) -> None:
    """Record attempts, and disable the endpoints (tenant, id) that answered 410. May be repeated."""
    for tenant, endpoint in sorted(set(gone)):
        webhooks.disable(tx.conn, tenant, endpoint, "gone")
    recorded = deliveries.record(tx.conn, told)
    for _, endpoint in sorted(set(gone)):
        deliveries.fail_all(tx.conn, endpoint)
    delivered = [one for one in recorded if one.state is DeliveryState.DELIVERED]
    counts.add(tx.conn, "webhook_attempt", len(recorded))
    counts.add(tx.conn, "webhook_attempt_milliseconds", sum(one.milliseconds for one in recorded))
    counts.add(tx.conn, "webhook_delivered", len(delivered))
    counts.add(tx.conn, "webhook_delivered_milliseconds", sum(_milliseconds(one.age) for one in delivered))
    counts.add(tx.conn, "webhook_unsigned", sum(one.error == NO_SECRET for one in told))
    given_up = [one.id for one in recorded if one.state is DeliveryState.FAILED]
    counts.add(tx.conn, "webhook_given_up", len(given_up), about=", ".join(given_up[:_MOST_NAMED]))


def _milliseconds(age: timedelta | None) -> int:
    return 0 if age is None else max(0, int(age / timedelta(milliseconds=1)))


def put_back(tx: Transaction, claims: Sequence[tuple[str, int]]) -> None:
    """Give back attempts that are broken off, since this process ends."""
    deliveries.put_back(tx.conn, claims)


def get(tx: Transaction, tenant: str, id: str) -> Delivery:
    """A delivery with all its attempts; raise NotFound."""
    found = deliveries.get(tx.conn, tenant, id)
    if found is None:
        raise NotFound("webhook delivery", id)
    return found


def page(
    tx: Transaction,
    tenant: str,
    *,
    after: str | None,
    limit: int,
    endpoint: str | None = None,
    batch: str | None = None,
    event: str | None = None,
    state: DeliveryState | None = None,
) -> list[Delivery]:
    """A tenant's deliveries, newest first, after the one named, which may be gone; raise NotFound."""
    place = cursor.place(tx, tenant, Listed.DELIVERIES, after)
    return deliveries.page(
        tx.conn, tenant, after=place, limit=limit, endpoint=endpoint, batch=batch, event=event, state=state
    )


def replay(tx: Transaction, tenant: str, id: str) -> Delivery:
    """Send one delivery again, under its id, with the whole schedule before it; raise NotFound or Conflict."""
    found = get(tx, tenant, id)
    if not deliveries.replay(tx.conn, tenant, id=id, limit=1):
        if found.state is DeliveryState.PENDING:
            raise Conflict("pending", "replayed", "It is not over yet: it is tried again by itself.")
        raise Conflict("disabled", "replayed", "Its endpoint is disabled or deleted, or it was a test.")
    tx.hint(hint.deliver(found.object))
    return get(tx, tenant, id)


def replay_all(
    tx: Transaction,
    tenant: str,
    *,
    endpoint: str | None = None,
    batch: str | None = None,
    event: str | None = None,
    state: DeliveryState = DeliveryState.FAILED,
    since: datetime | None = None,
    until: datetime | None = None,
) -> int:
    """Send again what ended like this, up to MOST_REPLAYED of it; how many. What is pending is not touched."""
    again = deliveries.replay(
        tx.conn,
        tenant,
        limit=MOST_REPLAYED,
        endpoint=endpoint,
        batch=batch,
        event=event,
        state=state,
        since=since,
        until=until,
    )
    if again:
        tx.hint(hint.deliver(batch or "replayed"))
    return again


async def until_over(db: AsyncDatabase, tenant: str, id: str, seconds: float) -> Delivery:
    """A delivery once it is over, or after so many seconds; no connection is held meanwhile."""
    end = time.monotonic() + seconds
    while True:
        found = await db.run(get, tenant, id)
        if found.state is not DeliveryState.PENDING or time.monotonic() >= end:
            return found
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
