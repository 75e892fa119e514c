"""`/console/tenants`: who there is, how they share, what they may and what they used. For operators."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from penstock.console import limit_form, pages
from penstock.console.api_client import ApiProblem
from penstock.console.drawings import usage_sums
from penstock.console.form_route import FormRoute
from penstock.console.form_values import FormRefused, decimal_or_none, whole_or_none
from penstock.console.forms import Sent, SentForm
from penstock.console.navigation import BASE
from penstock.console.paging import After, following
from penstock.console.session import LoggedInOperator, Visitor

router = APIRouter(prefix=BASE, route_class=FormRoute)

_NOTICES: Final = {
    "created": "The tenant is there. It has no key yet.",
    "changed": "Changed, from now on.",
    "limits": "The limits are in force within seconds.",
    "revoked": "The key is not valid any more.",
}


@router.get("/tenants")
async def tenants(request: Request, visitor: LoggedInOperator, after: After = None) -> Response:
    """All tenants by name."""
    return await _listed(request, visitor, after)


@router.post("/tenants")
async def create(request: Request, visitor: LoggedInOperator, form: Sent) -> Response:
    """Make a tenant."""
    try:
        made = await visitor.api.post("/v1/admin/tenants", {"name": form["name"]})
    except ApiProblem as problem:
        return await _listed(request, visitor, None, problem, form["name"])
    return pages.redirect(request, f"/tenants/{made['id']}?done=created")


@router.get("/tenants/{tenant}")
async def tenant(request: Request, visitor: LoggedInOperator, tenant: str, after: After = None) -> Response:
    """One tenant, whole."""
    return await shown(request, visitor, tenant, after=after)


@router.post("/tenants/{tenant}/change")
async def change(request: Request, visitor: LoggedInOperator, tenant: str, form: Sent) -> Response:
    """Change its share, its use of the shared cache, and how long its things are kept."""
    try:
        asked = {
            "weight": decimal_or_none(form["weight"], "weight"),
            "cache": "cache" in form,
            "batch_retention_days": whole_or_none(form["batch_retention_days"], "batch_retention_days"),
            "file_retention_days": whole_or_none(form["file_retention_days"], "file_retention_days"),
        }
        if asked["weight"] is None:
            del asked["weight"]
        await visitor.api.post(f"/v1/admin/tenants/{tenant}", asked)
    except (ApiProblem, FormRefused) as problem:
        return await shown(request, visitor, tenant, problem, at="change", typed=form)
    return pages.redirect(request, f"/tenants/{tenant}?done=changed")


@router.post("/tenants/{tenant}/limits")
async def set_limits(request: Request, visitor: LoggedInOperator, tenant: str, form: Sent) -> Response:
    """Set the limits that were changed, and the budget; what was emptied gets its default back."""
    try:
        if asked := limit_form.changes(form):
            await visitor.api.post(f"/v1/admin/tenants/{tenant}/limits", asked)
    except (ApiProblem, FormRefused) as problem:
        return await shown(request, visitor, tenant, problem, at="limits", typed=form)
    return pages.redirect(request, f"/tenants/{tenant}?done=limits")


@router.post("/tenants/{tenant}/erase")
async def erase(request: Request, visitor: LoggedInOperator, tenant: str, form: Sent) -> Response:
    """Erase a tenant whose name was typed."""
    try:
        if form["name"] != tenant:
            raise FormRefused("Nothing was erased: the name that was typed is not this tenant's.")
        begun = await visitor.api.delete(f"/v1/admin/tenants/{tenant}")
    except (ApiProblem, FormRefused) as problem:
        return await shown(request, visitor, tenant, problem, at="erase", typed=form)
    return pages.redirect(request, f"/erasures/{begun['id']}")


@router.get("/erasures/{erasure}")
async def erasure(request: Request, visitor: LoggedInOperator, erasure: str) -> Response:
    """How far an erasure is; also when the tenant is gone."""
    found = await visitor.api.get(f"/v1/admin/erasures/{erasure}")
    return pages.page(request, visitor, "erasure.html", erasure=found)


async def shown(
    request: Request,
    visitor: Visitor,
    tenant: str,
    problem: ApiProblem | FormRefused | None = None,
    *,
    at: str = "",
    typed: SentForm | None = None,
    after: str | None = None,
) -> Response:
    """A tenant's page; with the problem of one of its forms, and what was typed there."""
    api, month = visitor.api, datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    found = await api.get(f"/v1/admin/tenants/{tenant}")
    keys = await api.get("/v1/admin/api_keys", {"tenant": tenant, "after": after, "limit": 25})
    limits = await api.get(f"/v1/admin/tenants/{tenant}/limits/used")
    usage = await api.get(
        f"/v1/admin/tenants/{tenant}/usage",
        {"start_time": int(month.timestamp()), "limit": 31, "group_by": "model"},
    )
    values: dict[str, Any] = {
        "tenant": found,
        "keys": keys,
        "next": following(keys),
        "is_first": after is None,
        "limits": limits,
        "used": usage_sums.by(usage["data"], "model"),
        "total": usage_sums.total(usage["data"]),
        "month": f"{month:%B %Y}",
        "now": int(time.time()),
        "problem": problem,
        "at": at,
        "typed": typed,
        "notices": _NOTICES,
    }
    return pages.page(request, visitor, "tenant.html", problem.status if problem else 200, **values)


async def _listed(
    request: Request, visitor: Visitor, after: str | None, problem: ApiProblem | None = None, typed: str = ""
) -> Response:
    found = await visitor.api.get("/v1/admin/tenants", {"after": after, "limit": 50})
    values = {"list": found, "next": following(found), "is_first": after is None, "problem": problem, "typed": typed}
    return pages.page(request, visitor, "tenants.html", problem.status if problem else 200, **values)
