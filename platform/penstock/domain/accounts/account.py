"""Accounts: who takes turns where work waits in line. A tenant has two: one for its batches, one for its small jobs.

So a small job passes its own tenant's large batch as it passes those of others. Together they get what the tenant
gets: see store/accounts/fair_turns.py.
"""

from __future__ import annotations

from typing import Final

_SMALL: Final = " small"
"""No tenant's name has a space."""


def account(tenant: str, *, small: bool) -> str:
    """The account of a tenant's small jobs, or of its batches."""
    return tenant + _SMALL if small else tenant


def accounts(tenant: str) -> tuple[str, str]:
    """Both of a tenant's accounts."""
    return tenant, tenant + _SMALL


def tenant_of(account: str) -> str:
    """Whose account it is."""
    return account.removesuffix(_SMALL)
