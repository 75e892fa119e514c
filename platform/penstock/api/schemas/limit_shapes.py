"""What limits and budgets look like: to who has them, and to the operator who sets them."""

from __future__ import annotations

from datetime import date
from typing import Literal

from pydantic import BaseModel, Field

from penstock.domain.accounts.price import money
from penstock.domain.limits.budget import TenantBudget
from penstock.domain.limits.limit import OF_KEYS, RULES
from penstock.service.limits import report


class LimitShape(BaseModel):
    """One limit, and what is used of it."""

    name: str
    scope: Literal["tenant", "key"] = Field(description="Whose it is.")
    kind: Literal["rate", "at_once", "kept"] = Field(
        description="A rate counts a minute, over all API processes; `at_once` what one API process holds now; "
        "`kept` all that there is."
    )
    counts: str = Field(description="What is counted, in words.")
    limit: int | None = Field(description="Null: there is none.")
    used: int
    remaining: int | None
    resets_in_seconds: float | None = Field(description="Of a rate: until nothing of it is used.")


class BudgetShape(BaseModel):
    """What the tenant may spend in this month."""

    month: str = Field(description="`2026-11` (UTC).")
    limit: str = Field(description="A decimal number of the currency.")
    used: str = Field(description="As it was some seconds ago.")
    currency: str | None
    state: Literal["open", "warned", "spent"] = Field(
        description="`warned` from four fifths on; `spent`: nothing new is begun, and what runs is paused."
    )


class LimitsShape(BaseModel):
    """All limits of the key that asks."""

    object: Literal["list"] = "list"
    data: list[LimitShape]
    budget: BudgetShape | None = Field(description="Null: there is none.")


class TenantLimitShape(BaseModel):
    """One limit of a tenant, as an operator sets it."""

    name: str
    kind: Literal["rate", "at_once", "kept"]
    counts: str = Field(description="What is counted, in words.")
    of_keys: bool = Field(description="Whether one key can be limited to less.")
    default: int | None = Field(description="What holds if nothing is set; null: no limit.")
    given: int | None = Field(description="What is set; null: the default holds.")
    used: int | None = Field(description="Of what is kept: all that there is. Null of the others.")


class TenantLimitsShape(BaseModel):
    """Every limit of a tenant, and its budget."""

    object: Literal["list"] = "list"
    data: list[TenantLimitShape]
    budget: BudgetShape | None = Field(description="Null: there is none.")


def limit(one: report.LimitUse) -> LimitShape:
    """A limit's shape."""
    return LimitShape(
        name=one.name,
        scope="key" if one.of_key else "tenant",
        kind=RULES[one.name].kind.value,
        counts=RULES[one.name].words,
        limit=one.limit,
        used=one.used,
        remaining=None if one.limit is None else max(0, one.limit - one.used),
        resets_in_seconds=None if one.reset_seconds is None else round(one.reset_seconds, 3),
    )


def tenant_limit(one: report.TenantLimitUse) -> TenantLimitShape:
    """The shape of a tenant's limit."""
    return TenantLimitShape(
        name=one.name,
        kind=RULES[one.name].kind.value,
        counts=RULES[one.name].words,
        of_keys=one.name in OF_KEYS,
        default=one.default,
        given=one.given,
        used=one.used,
    )


def budget(one: TenantBudget, currency: str | None) -> BudgetShape:
    """A budget's shape."""
    assert one.budget is not None, "there is one"
    return BudgetShape(
        month=_month(one.month),
        limit=money(one.budget),
        used=money(one.used),
        currency=currency,
        state="spent" if one.state == "spent" else "warned" if one.state == "warned" else "open",
    )


def _month(day: date) -> str:
    return f"{day.year:04}-{day.month:02}"
