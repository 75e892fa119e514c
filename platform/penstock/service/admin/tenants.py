"""Tenants: who there is, and how the operator shares lanes among those who have work in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from penstock.domain.accounts.tenant import LONGEST_RETENTION_DAYS, Tenant
from penstock.domain.api_errors import BadRequest, Conflict, NotFound
from penstock.service.core import audit
from penstock.service.core.transaction import Transaction
from penstock.store.accounts import keys, tenants

_MOST: Final = 10_000
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LEAST_WEIGHT: Final = 0.001
_MOST_WEIGHT: Final = 1_000.0


def ensure(tx: Transaction, tenant: str) -> bool:
    """Make a tenant; False if it is there already.

    Raises BadRequest for a name that is none, and Conflict while it is being erased.
    """
    if not _NAME.fullmatch(tenant):
        raise BadRequest("A tenant's name has 1 to 63 of a-z, 0-9, _ and -.", param="name")
    made = keys.ensure_tenant(tx.conn, tenant, tenant)
    if made:
        audit.record(tx, tenant, "tenant.created", tenant)
    else:
        check_open(tx, tenant)
    return made


def check_open(tx: Transaction, tenant: str) -> None:
    """Raise NotFound, or Conflict while a tenant is being erased: what is changed of it then would be gone at once."""
    if get(tx, tenant).erasure:
        raise Conflict("being erased", "changed", f"The tenant {tenant!r} is being erased.")


def create(tx: Transaction, tenant: str) -> Tenant:
    """Make a tenant that is not there yet; raise BadRequest, or Conflict if it is."""
    if not ensure(tx, tenant):
        raise Conflict("there", "created", f"There is a tenant {tenant!r} already.")
    return get(tx, tenant)


def get(tx: Transaction, tenant: str) -> Tenant:
    """One tenant; raise NotFound."""
    found = tenants.get(tx.conn, tenant)
    if found is None:
        raise NotFound("tenant", tenant)
    return found


def page(tx: Transaction, *, after: str | None = None, limit: int = _MOST) -> list[Tenant]:
    """All tenants by id, after the one named."""
    return tenants.page(tx.conn, after=after, limit=limit)


def change(
    tx: Transaction,
    tenant: str,
    *,
    weight: float | None = None,
    cache: bool | None = None,
    retention: Mapping[str, int | None] = MappingProxyType({}),
) -> Tenant:
    """Change what is named.

    Raises NotFound, BadRequest for a weight or a number of days that is none, and Conflict while it is being erased.
    """
    check_open(tx, tenant)
    if weight is not None:
        weigh(tx, tenant, weight)
    if cache is not None:
        set_cache(tx, tenant, cache)
    for what, days in retention.items():
        retain(tx, tenant, what, days)
    return get(tx, tenant)


def weigh(tx: Transaction, tenant: str, weight: float) -> None:
    """Set a tenant's weight in the lanes, from now on; raise NotFound, or BadRequest for a weight that is none."""
    if not _LEAST_WEIGHT <= weight <= _MOST_WEIGHT:  # a NaN is not either
        raise BadRequest(f"A weight is a number from {_LEAST_WEIGHT:g} to {_MOST_WEIGHT:g}.", param="weight")
    if not tenants.weigh(tx.conn, tenant, weight):
        raise NotFound("tenant", tenant)
    audit.record(tx, tenant, "tenant.updated", tenant, weight=weight)


def set_cache(tx: Transaction, tenant: str, cache: bool) -> None:
    """Choose whether a tenant's requests use the shared cache unless they say otherwise; raise NotFound."""
    if not tenants.set_cache(tx.conn, tenant, cache):
        raise NotFound("tenant", tenant)
    audit.record(tx, tenant, "tenant.updated", tenant, cache=cache)


def retain(tx: Transaction, tenant: str, what: str, days: int | None) -> None:
    """Choose for how many days after their end a tenant's batches (`batch`) or files (`file`) are kept.

    None gives the platform's time back. It may be longer than that: both are the operator's word. Raises NotFound, or
    BadRequest for a number of days that is none.
    """
    if days is not None and not 1 <= days <= LONGEST_RETENTION_DAYS:
        raise BadRequest(f"A retention is 1 to {LONGEST_RETENTION_DAYS} days, or none.", param=f"{what}_retention_days")
    if not tenants.retain(tx.conn, tenant, what, days):
        raise NotFound("tenant", tenant)
    audit.record(tx, tenant, "tenant.updated", tenant, **{f"{what}_retention_days": days})
