"""Limits by the operator's word: set for a tenant or one of its keys, and in force within seconds."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.domain.api_errors import NotFound
from penstock.domain.limits import limit as domain
from penstock.domain.limits.limit import Limits
from penstock.service.admin import tenants
from penstock.service.core import audit
from penstock.service.core.transaction import Transaction
from penstock.store.accounts import limits


def of(tx: Transaction, tenant: str, key: str | None = None) -> Limits:
    """What is set for a tenant, or for a valid key of it; raise NotFound."""
    found = limits.of_tenant(tx.conn, tenant) if key is None else limits.of_key(tx.conn, tenant, key)
    return _found(found, tenant, key)


def change(tx: Transaction, tenant: str, given: Mapping[str, int | None], key: str | None = None) -> Limits:
    """Set what is given (None: back to its default) and keep the rest; all that is set then.

    Raises NotFound, BadRequest for a name or a number that is none, and Conflict while the tenant is being erased.
    """
    tenants.check_open(tx, tenant)
    new, gone = domain.read(given, of_key=key is not None)
    if key is None:
        found = limits.set_tenant(tx.conn, tenant, new, gone)
    else:
        found = limits.set_key(tx.conn, tenant, key, new, gone)
    changed = _found(found, tenant, key)
    if given:
        audit.record(tx, tenant, "limits.updated", key or tenant, **given)
    return changed


def _found(found: Limits | None, tenant: str, key: str | None) -> Limits:
    if found is None:
        raise NotFound("tenant", tenant) if key is None else NotFound("key", key)
    return found
