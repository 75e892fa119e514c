"""The report: what a key and its tenant may do, and how much of it is used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from penstock.domain.accounts.access import Access
from penstock.domain.limits.budget import TenantBudget
from penstock.domain.limits.limit import RULES, LimitKind, LimitName, Limits
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.service.limits import defaults
from penstock.service.limits.limiter import Limiter
from penstock.settings.limits import LimitSettings
from penstock.store.accounts import budgets, limits, prices


@dataclass(frozen=True)
class LimitUse:
    """One limit, and what is used of it."""

    name: LimitName
    of_key: bool
    limit: int | None
    used: int
    reset_seconds: float | None
    """Of a rate: until nothing of it is used, if nothing more is asked."""


@dataclass(frozen=True)
class TenantLimitUse:
    """One limit of a tenant as an operator sets it."""

    name: LimitName
    default: int | None
    given: int | None
    """What is set; None: the default holds."""
    used: int | None
    """Of what is kept."""


async def report(db: AsyncDatabase, limiter: Limiter, access: Access, settings: LimitSettings) -> list[LimitUse]:
    """Every limit of a key's tenant, and those of the key; what is held at once, in this process."""
    kept = await db.autocommit(_kept, access.tenant)
    return [one async for one in _uses(limiter, access, kept, settings)]


async def _uses(
    limiter: Limiter, access: Access, kept: dict[LimitName, int], settings: LimitSettings
) -> AsyncIterator[LimitUse]:
    for name, rule in RULES.items():
        own, all_keys = access.key_limits.get(name), defaults.limit(name, access.limits, settings)
        if rule.kind is LimitKind.RATE:
            if all_keys is None:
                yield LimitUse(name, False, None, 0, None)
            for rate in limiter.rates(access, name):
                found = await limiter.look(rate)
                used = found.limit - found.remaining
                yield LimitUse(name, rate.owner.startswith("key:"), found.limit, used, found.reset_seconds)
        elif rule.kind is LimitKind.AT_ONCE:
            yield LimitUse(name, False, all_keys, limiter.holds(access.tenant, name), None)
            if own is not None:
                yield LimitUse(name, True, own, limiter.holds(access.key, name), None)
        else:
            yield LimitUse(name, False, all_keys, kept[name], None)


def _kept(tx: Transaction, tenant: str) -> dict[LimitName, int]:
    return {name: limits.used(tx.conn, tenant, name) for name, rule in RULES.items() if rule.kind is LimitKind.KEPT}


def budget(tx: Transaction, tenant: str) -> tuple[TenantBudget | None, str | None]:
    """How a tenant's budget stood when it was looked at last (None: it has none), and the currency."""
    found = budgets.get(tx.conn, tenant)
    return (found if found and found.budget is not None else None), prices.currency(tx.conn)


def of_tenant(tx: Transaction, tenant: str, given: Limits, settings: LimitSettings) -> list[TenantLimitUse]:
    """Every limit of a tenant, with its default, what is set (`given`), and how much there is of what is kept."""
    kept = _kept(tx, tenant)
    return [TenantLimitUse(name, defaults.limit(name, {}, settings), given.get(name), kept.get(name)) for name in RULES]
