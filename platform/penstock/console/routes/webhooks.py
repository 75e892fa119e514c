"""`/console/webhooks`: where events go: endpoints made (their secret told once), rotated, tested, disabled, deleted."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from penstock.console import pages
from penstock.console.api_client import ApiProblem
from penstock.console.form_route import FormRoute
from penstock.console.forms import Sent, SentForm
from penstock.console.navigation import BASE
from penstock.console.paging import After, first, following
from penstock.console.session import LoggedIn, Visitor

router = APIRouter(prefix=BASE, route_class=FormRoute)

_ENDPOINTS: Final = "/v1/webhook_endpoints"
_NOTICES: Final = {
    "changed": "Changed, for what is still pending too.",
    "enabled": "Events go there again, from now on.",
    "disabled": "Nothing more goes there; what was pending is given up.",
    "deleted": "The endpoint is deleted. Its deliveries stay in the log until they are old.",
    "replayed": "What had failed is sent again.",
    "tested": "The sample event was answered with 2xx.",
}
_Status = Annotated[Literal["", "pending", "delivered", "failed"], Query()]


@router.get("/webhooks")
async def webhooks(request: Request, visitor: LoggedIn, after: After = None) -> Response:
    """Endpoints of the visitor's tenant."""
    return await _listed(request, visitor, after)


@router.post("/webhooks")
async def create(request: Request, visitor: LoggedIn, form: Sent) -> Response:
    """Make an endpoint, and show its secret."""
    asked: dict[str, Any] = {"url": form["url"], "name": form["name"], "event_types": form.all("event_types")}
    try:
        made = await visitor.api.post(_ENDPOINTS, asked)
    except ApiProblem as problem:
        return await _listed(request, visitor, None, problem, form)
    return _told(request, visitor, made, "A new webhook endpoint")


@router.get("/webhooks/{endpoint}")
async def webhook(
    request: Request, visitor: LoggedIn, endpoint: str, status: _Status = "", after: After = None
) -> Response:
    """One endpoint, and what was sent there."""
    return await _shown(request, visitor, endpoint, status, after)


@router.post("/webhooks/{endpoint}/change")
async def change(request: Request, visitor: LoggedIn, endpoint: str, form: Sent) -> Response:
    """Change its address, its name, or what it hears of."""
    asked: dict[str, Any] = {"url": form["url"], "name": form["name"], "event_types": form.all("event_types")}
    try:
        await visitor.api.post(f"{_ENDPOINTS}/{endpoint}", asked)
    except ApiProblem as problem:
        return await _shown(request, visitor, endpoint, problem=problem, typed=form)
    return pages.redirect(request, f"/webhooks/{endpoint}?done=changed")


@router.post("/webhooks/{endpoint}/rotate")
async def rotate(request: Request, visitor: LoggedIn, endpoint: str, form: Sent) -> Response:
    """Make another secret, and show it."""
    keeps = "keep" in form
    body = {"keep_old_secret_active_for_24_hours": keeps}
    made = await visitor.api.post(f"{_ENDPOINTS}/{endpoint}/rotate", body)
    return _told(request, visitor, made, "A new secret")


@router.post("/webhooks/{endpoint}/{act}")
async def act(
    request: Request, visitor: LoggedIn, endpoint: str, act: Literal["enable", "disable", "delete", "test", "replay"]
) -> Response:
    """Enable, disable or delete it; send it a sample; send again all that failed."""
    place = f"/webhooks/{endpoint}"
    if act == "delete":
        await visitor.api.delete(f"{_ENDPOINTS}/{endpoint}")
        return pages.redirect(request, "/webhooks?done=deleted")
    if act == "replay":
        await visitor.api.post("/v1/webhook_deliveries/replay", {"endpoint_id": endpoint, "status": "failed"})
        return pages.redirect(request, f"{place}?done=replayed")
    if act == "test":
        try:
            tested = await visitor.api.post(f"{_ENDPOINTS}/{endpoint}/test", {})
        except ApiProblem as problem:
            return await _shown(request, visitor, endpoint, problem=problem)
        done = "?done=tested" if 200 <= tested["status_code"] < 300 else ""
        return pages.redirect(request, f"{place}/deliveries/{tested['delivery_id']}{done}")
    await visitor.api.post(f"{_ENDPOINTS}/{endpoint}", {"enabled": act == "enable"})
    return pages.redirect(request, f"{place}?done={act}d")


async def _listed(
    request: Request,
    visitor: Visitor,
    after: str | None,
    problem: ApiProblem | None = None,
    typed: SentForm | None = None,
) -> Response:
    found = await visitor.api.get(_ENDPOINTS, {"after": after, "limit": 50})
    values = {
        "list": found,
        "is_first": after is None,
        "next": following(found),
        "types": await _types(visitor),
        "problem": problem,
        "typed": typed,
        "server": str(request.base_url).rstrip("/"),
        "notices": _NOTICES,
    }
    return pages.page(request, visitor, "webhooks.html", problem.status if problem else 200, **values)


async def _shown(
    request: Request,
    visitor: Visitor,
    endpoint: str,
    status: str = "",
    after: str | None = None,
    problem: ApiProblem | None = None,
    typed: SentForm | None = None,
) -> Response:
    found = await visitor.api.get(f"{_ENDPOINTS}/{endpoint}")
    query = {"endpoint": endpoint, "status": status or None, "after": after, "limit": 25}
    deliveries = await visitor.api.get("/v1/webhook_deliveries", query)
    values = {
        "endpoint": found,
        "list": deliveries,
        "shown_status": status,
        "is_first": after is None,
        "next": following(deliveries, status=status),
        "first": first(status=status),
        "types": await _types(visitor),
        "problem": problem,
        "typed": typed,
        "notices": _NOTICES,
    }
    return pages.page(request, visitor, "webhook.html", problem.status if problem else 200, **values)


async def _types(visitor: Visitor) -> list[str]:
    found: list[str] = (await visitor.api.get("/v1/webhook_event_types"))["data"]
    return found


def _told(request: Request, visitor: Visitor, made: dict[str, Any], title: str) -> Response:
    values = {"title": title, "name": made["url"], "secret": made["signing_secret"], "back": f"/webhooks/{made['id']}"}
    return pages.page(request, visitor, "secret.html", **values)
