"""Webhook endpoints: made, changed, rotated and deleted by their tenant; or made with one batch, for it alone."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from penstock.domain.api_errors import NotFound
from penstock.domain.limits.limit import LimitName
from penstock.domain.webhook import (
    BATCH_EVENT_TYPES,
    MADE_SECRET_BYTES,
    Endpoint,
    WebhookRequest,
    receiver_of,
    secret_of,
)
from penstock.service.core import audit, cursor
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import Transaction
from penstock.service.limits import kept
from penstock.service.webhooks import secret_keys
from penstock.settings import Settings
from penstock.settings.webhooks import WebhookSettings
from penstock.store import deliveries, webhooks
from penstock.store.cursors import Listed

BOTH_SECRETS: Final = timedelta(hours=24)
"""So long after a rotation everything is signed with the old secret too."""


def wish(url: str, event_types: Sequence[str] | None, secret: str | None, settings: WebhookSettings) -> WebhookRequest:
    """A webhook for a batch that is about to be made. Raises Unavailable if there is no key to keep its secret with."""
    told = secret or _fresh_secret()
    sealed = secret_keys.of(settings).seal(told)
    return WebhookRequest(url, tuple(event_types or BATCH_EVENT_TYPES), told, sealed, made=secret is None)


def attach(tx: Transaction, tenant: str, batch: str, wished: WebhookRequest) -> None:
    """Make a batch's own endpoint, in the transaction that makes the batch."""
    webhooks.insert(
        tx.conn,
        tenant,
        id=fresh("we_"),
        batch=batch,
        name="",
        url=wished.url,
        receiver=receiver_of(wished.url),
        event_types=wished.event_types,
        secret=wished.sealed,
    )


def of_batch(tx: Transaction, tenant: str, batch: str) -> Endpoint | None:
    """A batch's own endpoint."""
    return webhooks.of_batch(tx.conn, tenant, batch)


def create(
    tx: Transaction,
    tenant: str,
    name: str,
    url: str,
    event_types: Sequence[str],
    secret: str | None,
    settings: Settings,
) -> Endpoint:
    """Make an endpoint; its secret is told this once.

    Raises TooMany if there are as many as there may be, and Unavailable if there is no key to keep its secret with.
    """
    told = secret or _fresh_secret()
    sealed = secret_keys.of(settings).seal(told)
    kept.check(tx, tenant, {LimitName.ENDPOINTS: 1}, settings)
    made = webhooks.insert(
        tx.conn,
        tenant,
        id=fresh("we_"),
        batch=None,
        name=name,
        url=url,
        receiver=receiver_of(url),
        event_types=event_types,
        secret=sealed,
    )
    audit.record(tx, tenant, "webhook_endpoint.created", made.id, event_types=list(event_types))
    return dataclasses.replace(made, secret=told)


def get(tx: Transaction, tenant: str, id: str) -> Endpoint:
    """An endpoint of the tenant, or of one of its batches; raise NotFound."""
    return _found(webhooks.get(tx.conn, tenant, id), id)


def page(tx: Transaction, tenant: str, *, after: str | None, limit: int) -> list[Endpoint]:
    """The tenant's endpoints, newest first, after the one named, which may be gone; raise NotFound."""
    place = cursor.place(tx, tenant, Listed.ENDPOINTS, after)
    return webhooks.page(tx.conn, tenant, after=place, limit=limit)


def change(
    tx: Transaction,
    tenant: str,
    id: str,
    *,
    name: str | None = None,
    url: str | None = None,
    event_types: Sequence[str] | None = None,
    enabled: bool | None = None,
) -> Endpoint:
    """Change what is given, for what is still owed too; to disable is to give up what is owed. Raises NotFound."""
    receiver = None if url is None else receiver_of(url)
    changed = webhooks.change(
        tx.conn, tenant, id, name=name, url=url, receiver=receiver, event_types=event_types, enabled=enabled
    )
    if receiver is not None:
        deliveries.move(tx.conn, id, receiver)
    if enabled is False:
        deliveries.fail_all(tx.conn, id)
    found = _found(changed, id)
    given = {"name": name, "url": url, "event_types": event_types, "enabled": enabled}
    what = sorted(field for field, value in given.items() if value is not None)
    audit.record(tx, tenant, "webhook_endpoint.updated", id, changed=what)
    return found


def rotate(tx: Transaction, tenant: str, id: str, keep_old: bool, settings: WebhookSettings) -> Endpoint:
    """A new secret, told this once; with `keep_old`, both sign for 24 hours. Raises NotFound or Unavailable."""
    told = _fresh_secret()
    keep = BOTH_SECRETS if keep_old else timedelta()
    sealed = secret_keys.of(settings).seal(told)
    found = _found(webhooks.rotate(tx.conn, tenant, id, secret=sealed, keep=keep), id)
    audit.record(tx, tenant, "webhook_endpoint.secret_rotated", id, keep_old=keep_old)
    return dataclasses.replace(found, secret=told)


def delete(tx: Transaction, tenant: str, id: str) -> None:
    """Send nothing more to it; its log stays until it is old. Raises NotFound."""
    if not webhooks.disable(tx.conn, tenant, id, "deleted"):
        raise NotFound("webhook endpoint", id)
    deliveries.fail_all(tx.conn, id)
    audit.record(tx, tenant, "webhook_endpoint.deleted", id)


def _found(endpoint: Endpoint | None, id: str) -> Endpoint:
    if endpoint is None:
        raise NotFound("webhook endpoint", id)
    return endpoint


def _fresh_secret() -> str:
    return secret_of(secrets.token_bytes(MADE_SECRET_BYTES))
