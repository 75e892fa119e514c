"""Tenants: how the operator shares lanes among those who have work in them."""

from __future__ import annotations

from typing import Final

from penstock.domain.accounts.tenant import Tenant
from penstock.domain.api_errors import BadRequest, NotFound
from penstock.service.core.transaction import Transaction
from penstock.store.accounts import tenants

_LEAST_WEIGHT: Final = 0.001
_MOST_WEIGHT: Final = 1_000.0


def page(tx: Transaction) -> list[Tenant]:
    """All tenants by id."""
    return tenants.page(tx.conn)


def weigh(tx: Transaction, tenant: str, weight: float) -> None:
    """Set a tenant's weight in the lanes, from now on; raise NotFound, or BadRequest for a weight that is none."""
    if not _LEAST_WEIGHT <= weight <= _MOST_WEIGHT:  # a NaN is not either
        raise BadRequest(f"A weight is a number from {_LEAST_WEIGHT:g} to {_MOST_WEIGHT:g}.", param="weight")
    if not tenants.weigh(tx.conn, tenant, weight):
        raise NotFound("tenant", tenant)


def set_cache(tx: Transaction, tenant: str, cache: bool) -> None:
    """Choose whether a tenant's requests use the shared cache unless they say otherwise; raise NotFound."""
    if not tenants.set_cache(tx.conn, tenant, cache):
        raise NotFound("tenant", tenant)
