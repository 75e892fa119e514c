"""Limits over HTTP: a client asks what it may do, and how much of that is left."""

from __future__ import annotations

from datetime import date
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from penstock.api.auth import Tenant, access_of
from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here
from penstock.domain.accounts.price import money
from penstock.domain.limits.budget import TenantBudget
from penstock.domain.limits.limit import RULES
from penstock.service.limits import report

router = APIRouter(prefix="/v1/limits", tags=["limits"], responses=DOCUMENTED)


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


@router.get("", summary="See your limits")
async def get_limits(request: Request, tenant: Tenant, here: Here) -> LimitsShape:
    """What your tenant and this key may do, and how much of it is used; what is not set by the operator is a default.

    Where a limit is reached, the answer is a 429 that names it, with `retry-after`, or `x-should-retry: false` where
    waiting does not help. Answers to a key with rates carry `x-ratelimit-limit-requests`, `-remaining-requests` and
    `-reset-requests`, and the same for tokens.
    """
    found = await report.report(here.db, here.limiter, access_of(request), here.settings)
    stands, currency = await here.db.autocommit(report.budget, tenant)
    return LimitsShape(data=[_shape(one) for one in found], budget=_budget(stands, currency) if stands else None)


def _shape(one: report.LimitUse) -> LimitShape:
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


def _budget(one: TenantBudget, currency: str | None) -> BudgetShape:
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
