"""Budgets: what a tenant may spend in a month, in picounits of the currency, and what follows from what it spent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final, Self

WARN_AT: Final = (4, 5)
"""A tenant hears of it at four fifths."""


@dataclass(frozen=True)
class TenantBudget:
    """A tenant's budget, as it was found last."""

    tenant: str
    budget: int | None
    """None: there is none."""
    month: date
    """Its first day."""
    used: int
    state: str | None
    """`warned` or `spent`, in this month."""

    @classmethod
    def of(cls, tenant: str, budget: Decimal | None, month: date, used: Decimal, state: str | None) -> Self:
        """As a row has it."""
        return cls(tenant, None if budget is None else int(budget), month, int(used), state)

    def state_at(self, used: int) -> str | None:
        """What so much makes of it."""
        if self.budget is None:
            return None
        if used >= self.budget:
            return "spent"
        part, whole = WARN_AT
        return "warned" if used * whole >= self.budget * part else None
