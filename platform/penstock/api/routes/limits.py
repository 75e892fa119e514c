"""Limits over HTTP: a client asks what it may do, and how much of that is left."""

from __future__ import annotations

from fastapi import APIRouter, Request

from penstock.api.auth import Tenant, access_of
from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here
from penstock.api.schemas import limit_shapes
from penstock.api.schemas.limit_shapes import LimitsShape
from penstock.service.limits import report

router = APIRouter(prefix="/v1/limits", tags=["limits"], responses=DOCUMENTED)


@router.get("", summary="See your limits")
async def get_limits(request: Request, tenant: Tenant, here: Here) -> LimitsShape:
    """What your tenant and this key may do, and how much of it is used; what is not set by the operator is a default.

    Where a limit is reached, the answer is a 429 that names it, with `retry-after`, or `x-should-retry: false` where
    waiting does not help. Answers to a key with rates carry `x-ratelimit-limit-requests`, `-remaining-requests` and
    `-reset-requests`, and the same for tokens.
    """
    found = await report.report(here.db, here.limiter, access_of(request), here.settings)
    stands, currency = await here.db.autocommit(report.budget, tenant)
    return LimitsShape(
        data=[limit_shapes.limit(one) for one in found],
        budget=limit_shapes.budget(stands, currency) if stands else None,
    )
