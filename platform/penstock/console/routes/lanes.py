"""`/console/lanes`: what is open in each lane, for how long, and what runs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from penstock.console import pages
from penstock.console.api_client import GrantedApi
from penstock.console.live.platform_stream import Streamed
from penstock.console.navigation import BASE
from penstock.console.session import LoggedInOperator

router = APIRouter(prefix=BASE)


@router.get("/lanes")
async def lanes(
    request: Request, visitor: LoggedInOperator, live: Annotated[str, Query(max_length=10)] = ""
) -> Response:
    """All lanes."""
    return pages.page(request, visitor, "lanes.html", **await _now(visitor.api), live=live != "off")


@router.get("/lanes/stream")
async def lanes_stream(stream: Streamed) -> Response:
    """The same, as it changes."""
    return stream.of("lanes_now.html", _now)


async def _now(api: GrantedApi) -> dict[str, Any]:
    return {"lanes": (await api.get("/v1/admin/lanes", {"running": 20}))["data"]}
