"""Kept: how much a tenant has of what stays until somebody takes it away; checked where more of it is made.

Whoever makes more holds the tenant's lock until its transaction ends, so two at once can't both find the last place.
Small jobs are the exception (service/intake/small_job_intake.py): they go by a look that is a second old at most.
"""

from __future__ import annotations

from penstock.domain.api_errors import PenstockError, TooMany, Unauthorized
from penstock.domain.limits.limit import RULES, LimitName, Limits
from penstock.service.core.transaction import Transaction
from penstock.service.limits import defaults
from penstock.settings.limits import LimitSettings
from penstock.store.accounts import limits

_PASSING = frozenset({LimitName.OPEN_BATCHES, LimitName.QUEUED_LINES, LimitName.QUEUED_TOKENS})
"""What grows less by itself."""


def check(tx: Transaction, tenant: str, more: dict[LimitName, int], settings: LimitSettings) -> None:
    """Raise TooMany if a tenant would keep more than it may, with so much more; Unauthorized while it is erased."""
    limits.lock(tx.conn, tenant)
    given = limits.of_tenant(tx.conn, tenant)
    if given is None:
        raise Unauthorized  # its key was valid when the request began
    for name, amount in more.items():
        if name is LimitName.FILES:
            limits.fold_file_sums(tx.conn, tenant)
        used = limits.used(tx.conn, tenant, name)
        if error := refusal(name, used, amount, given, settings):
            raise error


def refusal(name: LimitName, used: int, more: int, given: Limits, settings: LimitSettings) -> PenstockError | None:
    """Why a tenant with these limits may not have so much more of it; None if it may."""
    most = defaults.limit(name, given, settings)
    if most is None or used + more <= most:
        return None
    message = (
        f"The limit {name} of your tenant is {most} {RULES[name].words}: there are {used}, and this would add {more}."
    )
    if name in _PASSING:
        code = "token_limit_exceeded" if name is LimitName.QUEUED_TOKENS else None
        return TooMany(message, code=code, headers={"retry-after": "30"})
    return TooMany(message, code="limit_exceeded", headers={"x-should-retry": "false"})
