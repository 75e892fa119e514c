"""`/console/pools/{name}`: a pool: who is awake where, what waits, and each switch with why it came."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from penstock.console import pages
from penstock.console.api_client import ApiProblem, GrantedApi
from penstock.console.form_route import FormRoute
from penstock.console.forms import Sent
from penstock.console.live.platform_stream import Streamed, Values
from penstock.console.navigation import BASE
from penstock.console.session import LoggedInOperator, Visitor

router = APIRouter(prefix=BASE, route_class=FormRoute)

_NOTICES: Final = {
    "wake": "It is the next that is awake; then it takes turns as others do.",
    "pin": "It is woken, and kept awake until it is unpinned.",
    "unpin": "It takes turns as others do.",
    "cancel": "The switch is cancelled.",
}

After = Annotated[str | None, Query(max_length=200)]


@router.get("/pools/{name}")
async def pool(
    request: Request,
    visitor: LoggedInOperator,
    name: str,
    after: After = None,
    live: Annotated[str, Query(max_length=10)] = "",
) -> Response:
    """One pool."""
    return await _one(request, visitor, name, after, live)


@router.get("/pools/{name}/stream")
async def pool_stream(stream: Streamed, name: str, after: After = None) -> Response:
    """The same, as it changes."""
    return stream.of("pool_now.html", _pool(name, after), name, after)


@router.post("/pools/{name}/{act}")
async def act_on_pool(request: Request, visitor: LoggedInOperator, name: str, act: str, form: Sent) -> Response:
    """Wake, pin or unpin one of its versions, or cancel the switch that has not begun to stop an engine."""
    if act not in _NOTICES:
        raise ApiProblem(404, {"message": "There is no such page."}, {})
    body = None if act == "cancel" else {"version": form["version"]}
    try:
        await visitor.api.post(f"/v1/pools/{name}/{act}", body)
    except ApiProblem as problem:
        return await _one(request, visitor, name, None, "", problem)
    return pages.redirect(request, f"/pools/{name}?{urlencode({'done': act})}")


def _pool(name: str, after: str | None) -> Values:
    async def values(api: GrantedApi) -> dict[str, Any]:
        one, decisions = await asyncio.gather(
            api.get(f"/v1/pools/{name}"), api.get(f"/v1/pools/{name}/decisions", {"after": after, "limit": 20})
        )
        return {
            "one": one,
            "decisions": decisions,
            "is_first": after is None,
            "next": f"?{urlencode({'after': decisions['last_id'] or ''})}",
        }

    return values


async def _one(
    request: Request, visitor: Visitor, name: str, after: str | None, live: str, problem: ApiProblem | None = None
) -> Response:
    values = await _pool(name, after)(visitor.api)
    values |= {"live": live != "off", "after": after, "notices": _NOTICES, "problem": problem}
    return pages.page(request, visitor, "pool.html", problem.status if problem else 200, **values)
