"""Limits and budgets of tenants and keys, as an operator sets them."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, create_model

from penstock.api.auth import Acting, Operator
from penstock.api.http import body
from penstock.api.http.body import Asked, Text
from penstock.api.platform import Here
from penstock.api.routes.admin.tenants import MAX_ADMIN_JSON_BYTES
from penstock.api.schemas import limit_shapes
from penstock.api.schemas.limit_shapes import TenantLimitsShape
from penstock.domain.accounts.price import money
from penstock.domain.limits.limit import OF_KEYS, RULES, Limits
from penstock.service.admin import keys, limits
from penstock.service.control import budgets
from penstock.service.limits import report

router = APIRouter()

Number = Annotated[int | None, Field(ge=0, le=2**53 - 1)]
_OF_TENANT: Final = {str(name): (Number, Field(None, description=rule.words)) for name, rule in RULES.items()}
_OF_KEY: Final = {str(name): (Number, Field(None, description=RULES[name].words)) for name in sorted(OF_KEYS)}


class _WithBudget(Asked):
    monthly_budget: Text | None = Field(
        None, description="What the tenant may spend in a month (UTC), in units of the currency: `250.00`; null: none."
    )


ChangeLimits = create_model("ChangeLimits", __base__=_WithBudget, __doc__="What is to change.", **_OF_TENANT)  # type: ignore[call-overload] # fields by name
ChangeKeyLimits = create_model("ChangeKeyLimits", __base__=Asked, __doc__="What is to change.", **_OF_KEY)  # type: ignore[call-overload]

BODIES: Final = (ChangeLimits, ChangeKeyLimits)


class GivenLimits(BaseModel):
    """What is set; what is not has the default of the settings."""

    object: str = "limits"
    limits: dict[str, int]
    monthly_budget: str | None = Field(None, description="Of a tenant; null: none.")


@router.get("/tenants/{tenant_id}/limits", summary="Look at a tenant's limits")
async def get_limits(tenant_id: str, operator: Operator, here: Here) -> GivenLimits:
    """What is set for a tenant."""
    return await _of_tenant(here, tenant_id, await here.db.autocommit(limits.of, tenant_id))


@router.get("/tenants/{tenant_id}/limits/used", summary="See what a tenant uses of its limits")
async def get_limits_used(tenant_id: str, operator: Operator, here: Here) -> TenantLimitsShape:
    """Every limit of a tenant with its default, what is set, and how much there is of what is kept; and its budget."""
    given = await here.db.autocommit(limits.of, tenant_id)
    found = await here.db.autocommit(report.of_tenant, tenant_id, given, here.settings)
    stands, currency = await here.db.autocommit(report.budget, tenant_id)
    return TenantLimitsShape(
        data=[limit_shapes.tenant_limit(one) for one in found],
        budget=limit_shapes.budget(stands, currency) if stands else None,
    )


@router.post(
    "/tenants/{tenant_id}/limits", summary="Set a tenant's limits", openapi_extra=body.documented(ChangeLimits)
)
async def set_limits(request: Request, tenant_id: str, operator: Operator, here: Acting) -> GivenLimits:
    """Set what is named, in force within seconds; null gives a limit its default back. What is left out stays."""
    asked = body.check(ChangeLimits, body.decode(await body.read(request, MAX_ADMIN_JSON_BYTES)))
    given = asked.model_dump(exclude_unset=True)
    has_budget, amount = "monthly_budget" in given, given.pop("monthly_budget", None)
    if has_budget:
        await here.db.run(budgets.set_budget, tenant_id, amount)
    found = await here.db.run(limits.change, tenant_id, given)
    return await _of_tenant(here, tenant_id, found)


@router.get("/api_keys/{key_id}/limits", summary="Look at a key's limits")
async def get_key_limits(key_id: str, operator: Operator, here: Here) -> GivenLimits:
    """What is set for one key, within its tenant's own."""
    key = await here.db.autocommit(keys.get, key_id)
    return _shape(await here.db.autocommit(limits.of, key.tenant, key_id))


@router.post("/api_keys/{key_id}/limits", summary="Set a key's limits", openapi_extra=body.documented(ChangeKeyLimits))
async def set_key_limits(request: Request, key_id: str, operator: Operator, here: Acting) -> GivenLimits:
    """The same for one key."""
    asked = body.check(ChangeKeyLimits, body.decode(await body.read(request, MAX_ADMIN_JSON_BYTES)))
    key = await here.db.autocommit(keys.get, key_id)
    return _shape(await here.db.run(limits.change, key.tenant, asked.model_dump(exclude_unset=True), key_id))


async def _of_tenant(here: Here, tenant: str, given: Limits) -> GivenLimits:
    stands, _ = await here.db.autocommit(report.budget, tenant)
    return _shape(given, None if stands is None or stands.budget is None else money(stands.budget))


def _shape(given: Limits, budget: str | None = None) -> GivenLimits:
    return GivenLimits(limits={str(name): value for name, value in sorted(given.items())}, monthly_budget=budget)
