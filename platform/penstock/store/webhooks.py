"""Webhook endpoints: where a tenant's events go, or those of one batch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, text

from penstock.domain.webhook import Endpoint, SealedSecret
from penstock.store import cursors
from penstock.store.cursors import ListPlace

_INSERT = text("""
    insert into webhook_endpoints (id, tenant, batch, name, url, receiver, event_types, secret, secret_hint)
    values (:id, :tenant, :batch, :name, :url, :receiver, cast(:event_types as text[]), :secret, :hint)
    returning *""")

_GET = text("""
    select * from webhook_endpoints
    where tenant = :tenant and id = :id and disabled_as is distinct from 'deleted'""")

_OF_BATCH = text("""
    select * from webhook_endpoints
    where tenant = :tenant and batch = :batch and disabled_as is distinct from 'deleted'""")

_PAGE = text("""
    select * from webhook_endpoints e
    where tenant = :tenant and batch is null and disabled_as is distinct from 'deleted'
      and (cast(:after_at as timestamptz) is null or (created_at, id) < (:after_at, :after))
    order by created_at desc, id desc limit :limit""")

_CHANGE = text("""
    update webhook_endpoints set updated_at = clock_timestamp(),
           name = coalesce(:name, name), url = coalesce(:url, url), receiver = coalesce(:receiver, receiver),
           event_types = coalesce(cast(:event_types as text[]), event_types),
           disabled_as = case when :enabled then null when not :enabled then coalesce(disabled_as, 'by_hand')
                              else disabled_as end
    where tenant = :tenant and id = :id and disabled_as is distinct from 'deleted'
    returning *""")

_ROTATE = text("""
    update webhook_endpoints set updated_at = clock_timestamp(), secret = :secret, secret_hint = :hint,
           old_secret = case when :keep > interval '0' then secret end,
           old_until = case when :keep > interval '0' then clock_timestamp() + :keep end
    where tenant = :tenant and id = :id and disabled_as is distinct from 'deleted'
    returning *""")

_DISABLE = text("""
    update webhook_endpoints set updated_at = clock_timestamp(), disabled_as = :how
    where id = :id and tenant = :tenant and disabled_as is distinct from 'deleted'
      and (disabled_as is null or :how = 'deleted')
    returning id""")

_SEALED_OTHERWISE = text("""
    -- Who rotates one of them meanwhile waits for the end of this transaction, or is waited for.
    select id, secret, old_secret from webhook_endpoints
    where id > :after and not (starts_with(secret, :prefix) and starts_with(coalesce(old_secret, :prefix), :prefix))
    order by id limit :limit
    for no key update""")

_SEAL = text("update webhook_endpoints set secret = :secret, old_secret = :old_secret where id = :id")

_COUNT_BY_KEY = text("""
    select case when starts_with(secret, :scheme) then split_part(secret, ':', 2) else '' end as key,
           count(*)::int as endpoints
    from webhook_endpoints where disabled_as is distinct from 'deleted' group by 1 order by 1""")


def _endpoint(row: Row[Any]) -> Endpoint:
    return Endpoint(
        id=row.id,
        tenant=row.tenant,
        batch=row.batch,
        name=row.name,
        url=row.url,
        event_types=tuple(row.event_types),
        sealed=SealedSecret(row.secret, row.secret_hint),
        disabled_as=row.disabled_as,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def insert(
    conn: Connection,
    tenant: str,
    *,
    id: str,
    batch: str | None,
    name: str,
    url: str,
    receiver: str,
    event_types: Sequence[str],
    secret: SealedSecret,
) -> Endpoint:
    """Insert an endpoint of the tenant, or of one batch."""
    values = {
        "tenant": tenant,
        "id": id,
        "batch": batch,
        "name": name,
        "url": url,
        "receiver": receiver,
        "event_types": list(event_types),
        "secret": secret.text,
        "hint": secret.hint,
    }
    return _endpoint(conn.execute(_INSERT, values).one())


def get(conn: Connection, tenant: str, id: str) -> Endpoint | None:
    """A tenant's endpoint, one of a batch included."""
    row = conn.execute(_GET, {"tenant": tenant, "id": id}).first()
    return _endpoint(row) if row else None


def of_batch(conn: Connection, tenant: str, batch: str) -> Endpoint | None:
    """A batch's own endpoint."""
    row = conn.execute(_OF_BATCH, {"tenant": tenant, "batch": batch}).first()
    return _endpoint(row) if row else None


def page(conn: Connection, tenant: str, *, after: ListPlace | None, limit: int) -> list[Endpoint]:
    """The tenant's endpoints, newest first; those of batches are not among them."""
    rows = conn.execute(_PAGE, {"tenant": tenant, "limit": limit} | cursors.values(after))
    return [_endpoint(row) for row in rows]


def change(
    conn: Connection,
    tenant: str,
    id: str,
    *,
    name: str | None = None,
    url: str | None = None,
    receiver: str | None = None,
    event_types: Sequence[str] | None = None,
    enabled: bool | None = None,
) -> Endpoint | None:
    """Change what is given; None if there is no such endpoint."""
    values = {
        "tenant": tenant,
        "id": id,
        "name": name,
        "url": url,
        "receiver": receiver,
        "event_types": None if event_types is None else list(event_types),
        "enabled": enabled,
    }
    row = conn.execute(_CHANGE, values).first()
    return _endpoint(row) if row else None


def rotate(conn: Connection, tenant: str, id: str, *, secret: SealedSecret, keep: timedelta) -> Endpoint | None:
    """Give it a new secret, and sign with the one before it too for so long."""
    values = {"tenant": tenant, "id": id, "secret": secret.text, "hint": secret.hint, "keep": keep}
    row = conn.execute(_ROTATE, values).first()
    return _endpoint(row) if row else None


def disable(conn: Connection, tenant: str, id: str, how: str) -> bool:
    """Send nothing more to it: `by_hand`, `gone` or `deleted`; False if there is nothing to disable."""
    return conn.execute(_DISABLE, {"tenant": tenant, "id": id, "how": how}).first() is not None


def sealed_otherwise(conn: Connection, prefix: str, after: str, limit: int) -> list[tuple[str, str, str | None]]:
    """Endpoints of all tenants after this id with a secret that does not begin so: id, secret, the one before it."""
    values = {"prefix": prefix, "after": after, "limit": limit}
    return [(row.id, row.secret, row.old_secret) for row in conn.execute(_SEALED_OTHERWISE, values)]


def seal(conn: Connection, id: str, secret: str, old_secret: str | None) -> None:
    """Keep an endpoint's secrets, the same ones, in another form."""
    conn.execute(_SEAL, {"id": id, "secret": secret, "old_secret": old_secret})


def count_by_key(conn: Connection, scheme: str) -> dict[str, int]:
    """How many endpoints have a secret under each key; under none: an empty word."""
    return {row.key: row.endpoints for row in conn.execute(_COUNT_BY_KEY, {"scheme": scheme})}
