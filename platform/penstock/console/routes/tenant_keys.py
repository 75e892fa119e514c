"""`/console/tenants/{tenant}/keys`: API keys of a tenant: made (and told once), rotated, limited, revoked.

A key that was made is in the answer to its POST alone: in no address, so that no log and no history has it. The
same form sent again gets that answer again (`form_route.py`).
"""

from __future__ import annotations

import time
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from penstock.console import limit_form, pages
from penstock.console.api_client import ApiProblem
from penstock.console.form_route import FormRoute
from penstock.console.form_values import FormRefused, whole_or_none
from penstock.console.forms import Sent, SentForm
from penstock.console.navigation import BASE
from penstock.console.routes import tenants
from penstock.console.session import LoggedInOperator, Visitor
from penstock.domain.limits.limit import OF_KEYS, RULES

router = APIRouter(prefix=BASE, route_class=FormRoute)

_DAY: Final = 86_400
_NOTICES: Final = {"limits": "The limits are in force within seconds."}


@router.post("/tenants/{tenant}/keys")
async def create(request: Request, visitor: LoggedInOperator, tenant: str, form: Sent) -> Response:
    """Make a key, and show it."""
    try:
        days = whole_or_none(form["days"], "days")
        scopes = form.all("scopes")
        if not scopes:  # to the API none would be all
            raise FormRefused("Choose at least one thing that the key may work with.", "scopes")
        asked: dict[str, Any] = {"name": form["name"], "tenant": tenant, "role": form["role"], "scopes": scopes}
        if models := form["models"].split():
            asked["models"] = models
        if days is not None:
            asked["expires_in_seconds"] = days * _DAY
        # A tenant that is not there is not made by the way, by a name that was mistyped in an address.
        await visitor.api.get(f"/v1/admin/tenants/{tenant}")
        made = await visitor.api.post("/v1/admin/api_keys", asked)
    except (ApiProblem, FormRefused) as problem:
        return await tenants.shown(request, visitor, tenant, problem, at="key", typed=form)
    return _told(request, visitor, made)


@router.get("/tenants/{tenant}/keys/{key}")
async def key(request: Request, visitor: LoggedInOperator, tenant: str, key: str) -> Response:
    """One key."""
    return await _shown(request, visitor, key)


@router.post("/tenants/{tenant}/keys/{key}/rotate")
async def rotate(request: Request, visitor: LoggedInOperator, tenant: str, key: str, form: Sent) -> Response:
    """Make a key in the place of another, and show it."""
    try:
        hours = whole_or_none(form["hours"], "hours")
        overlap = {} if hours is None else {"overlap_seconds": hours * 3_600}
        made = await visitor.api.post(f"/v1/admin/api_keys/{key}/rotate", overlap)
    except (ApiProblem, FormRefused) as problem:
        return await _shown(request, visitor, key, problem, at="rotate", typed=form)
    return _told(request, visitor, made)


@router.post("/tenants/{tenant}/keys/{key}/revoke")
async def revoke(request: Request, visitor: LoggedInOperator, tenant: str, key: str) -> Response:
    """End a key."""
    await visitor.api.delete(f"/v1/admin/api_keys/{key}")
    return pages.redirect(request, f"/tenants/{tenant}?done=revoked")


@router.post("/tenants/{tenant}/keys/{key}/limits")
async def set_limits(request: Request, visitor: LoggedInOperator, tenant: str, key: str, form: Sent) -> Response:
    """Set what a key may, within its tenant's limits."""
    try:
        if asked := limit_form.changes(form):
            await visitor.api.post(f"/v1/admin/api_keys/{key}/limits", asked)
    except (ApiProblem, FormRefused) as problem:
        return await _shown(request, visitor, key, problem, at="limits", typed=form)
    return pages.redirect(request, f"/tenants/{tenant}/keys/{key}?done=limits")


async def _shown(
    request: Request,
    visitor: Visitor,
    key: str,
    problem: ApiProblem | FormRefused | None = None,
    *,
    at: str = "",
    typed: SentForm | None = None,
) -> Response:
    found = await visitor.api.get(f"/v1/admin/api_keys/{key}")
    is_valid = found["revoked_at"] is None and (found["expires_at"] is None or found["expires_at"] > time.time())
    given = (await visitor.api.get(f"/v1/admin/api_keys/{key}/limits"))["limits"] if is_valid else {}
    limits = [
        {"name": name, "counts": rule.words, "kind": rule.kind.value, "given": given.get(name)}
        for name, rule in RULES.items()
        if name in OF_KEYS
    ]
    values = {"key": found, "is_valid": is_valid, "limits": limits, "problem": problem, "at": at, "typed": typed}
    status = problem.status if problem else 200
    return pages.page(request, visitor, "tenant_key.html", status, **values, notices=_NOTICES)


def _told(request: Request, visitor: Visitor, made: dict[str, Any]) -> Response:
    place = f"/tenants/{made['tenant']}"
    return pages.page(
        request, visitor, "secret.html", title="A new API key", name=made["name"], secret=made["value"], back=place
    )
