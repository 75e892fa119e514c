"""`/console/recovery`: what went wrong lately and was mended, or given up, over all tenants. For operators."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from penstock.console import pages
from penstock.console.navigation import BASE
from penstock.console.session import LoggedInOperator

router = APIRouter(prefix=BASE)

_NEWEST = 20


@router.get("/recovery")
async def recovery(request: Request, visitor: LoggedInOperator) -> Response:
    """Each kind of incident with its newest, and what is suspected of having killed an engine."""
    found = await visitor.api.get("/v1/admin/recovery", {"limit": _NEWEST})
    kinds = sorted(found["incidents"], key=lambda kind: -max((one["at"] for one in kind["newest"]), default=0))
    return pages.page(request, visitor, "recovery.html", recovery=found, kinds=kinds)
