"""`/console/audit`: who did what, newest first, by tenant, action and day. For operators."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from penstock.console import pages
from penstock.console.api_client import ApiProblem
from penstock.console.form_values import FormRefused
from penstock.console.navigation import BASE
from penstock.console.paging import After, first, following
from penstock.console.session import LoggedInOperator

router = APIRouter(prefix=BASE)

_EMPTY: Final[dict[str, Any]] = {"data": [], "last_id": None, "has_more": False}
_Text = Annotated[str, Query(max_length=100)]


@router.get("/audit")
async def audit(
    request: Request,
    visitor: LoggedInOperator,
    tenant: _Text = "",
    action: _Text = "",
    since: _Text = "",
    after: After = None,
) -> Response:
    """Acts of keys, of the command line and of the platform."""
    problem, found = None, _EMPTY
    asked = {"tenant": tenant.strip(), "action": action.strip(), "since": since.strip()}
    try:
        query = {"tenant": asked["tenant"] or None, "action": asked["action"] or None, "since": _unix(asked["since"])}
        found = await visitor.api.get("/v1/admin/audit", query | {"after": after, "limit": 50})
    except (ApiProblem, FormRefused) as refused:
        problem = refused
    values = {
        "list": found,
        "asked": asked,
        "problem": problem,
        "is_first": after is None,
        "next": following(found, **asked),
        "first": first(**asked),
        "only": lambda name, value: "?" + urlencode({one: it for one, it in (asked | {name: value}).items() if it}),
    }
    return pages.page(request, visitor, "audit.html", problem.status if problem else 200, **values)


def _unix(day: str) -> int | None:
    if not day:
        return None
    try:
        at = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise FormRefused("since is a day: 2026-11-30.", "since") from None
    return max(0, int(at.timestamp()))
