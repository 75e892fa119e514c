"""`/console/limits`: what the visitor's tenant and key may do, and how much of it is used."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from penstock.console import pages
from penstock.console.navigation import BASE
from penstock.console.session import LoggedIn

router = APIRouter(prefix=BASE)


@router.get("/limits")
async def limits(request: Request, visitor: LoggedIn) -> Response:
    """Every limit, those of the key among them, and the budget of the month."""
    found = await visitor.api.get("/v1/limits")
    return pages.page(request, visitor, "limits.html", limits=found)
