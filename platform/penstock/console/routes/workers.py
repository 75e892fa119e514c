"""`/console/workers`: who works, the picture of each engine's slots, and orders to them."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from penstock.console import pages
from penstock.console.api_client import ApiProblem, GrantedApi
from penstock.console.drawings.slots_picture import KINDS, slots_picture
from penstock.console.form_route import FormRoute
from penstock.console.live.platform_stream import Streamed, Values
from penstock.console.navigation import BASE
from penstock.console.session import LoggedInOperator, Visitor

router = APIRouter(prefix=BASE, route_class=FormRoute)

_NOTICES: Final = {
    "drain": "It was told to take nothing new; it is drained once it holds nothing.",
    "undrain": "It was told to take work again.",
    "restart": "It was told to end its engine and start it again.",
}
_A_PAGE: Final = 12
"""Processes on one page, so that pictures of large engines stay light."""

After = Annotated[str | None, Query(max_length=100)]
Live = Annotated[str, Query(max_length=10)]


@router.get("/workers")
async def workers(
    request: Request, visitor: LoggedInOperator, after: After = None, gone: bool = False, live: Live = ""
) -> Response:
    """Workers by kind and model."""
    values = await _page(after, gone)(visitor.api)
    values |= {"live": live != "off", "after": after, "kinds": KINDS}
    return pages.page(request, visitor, "workers.html", **values)


@router.get("/workers/stream")
async def workers_stream(stream: Streamed, after: After = None, gone: bool = False) -> Response:
    """The same, as it changes."""
    return stream.of("workers_now.html", _page(after, gone), after, str(gone))


@router.get("/workers/{id}")
async def worker(request: Request, visitor: LoggedInOperator, id: str, live: Live = "") -> Response:
    """One worker."""
    return await _one(request, visitor, id, live)


@router.get("/workers/{id}/stream")
async def worker_stream(stream: Streamed, id: str) -> Response:
    """The same, as it changes."""
    return stream.of("worker_now.html", _worker(id), id)


@router.post("/workers/{id}/{order}")
async def order_worker(
    request: Request, visitor: LoggedInOperator, id: str, order: Literal["drain", "undrain", "restart"]
) -> Response:
    """Drain, undrain or restart it."""
    try:
        await visitor.api.post(f"/v1/workers/{id}/{order}")
    except ApiProblem as problem:
        if problem.status == 404:
            raise
        return await _one(request, visitor, id, "", problem)
    return pages.redirect(request, f"/workers/{id}?done={order}")


def _page(after: str | None, gone: bool) -> Values:
    async def values(api: GrantedApi) -> dict[str, Any]:
        found = await api.get("/v1/workers", {"after": after, "limit": _A_PAGE, "gone": str(gone).lower()})
        return {"list": found, "gone": gone, "pictures": _pictures(found["data"])}

    return values


def _worker(id: str) -> Values:
    async def values(api: GrantedApi) -> dict[str, Any]:
        one = await api.get(f"/v1/workers/{id}")
        return {"one": one, "pictures": _pictures([one])}

    return values


def _pictures(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["id"]: slots_picture(one["engine_slots"]) for one in found if one["engine_slots"]}


async def _one(request: Request, visitor: Visitor, id: str, live: str, problem: ApiProblem | None = None) -> Response:
    values = await _worker(id)(visitor.api)
    values |= {"live": live != "off", "kinds": KINDS, "notices": _NOTICES, "problem": problem}
    return pages.page(request, visitor, "worker.html", problem.status if problem else 200, **values)
