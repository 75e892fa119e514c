"""`/console/batches/{id}/failed` and the same of jobs: how lines failed, in groups and one by one; ask them again."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from starlette.exceptions import HTTPException

from penstock.console import forms, pages, words
from penstock.console.api_client import ApiProblem
from penstock.console.batches import answers, batch_words, line_forms
from penstock.console.batches.line_forms import NO_CHANGES, LineChanges
from penstock.console.batches.nouns import Named, Noun
from penstock.console.form_route import FormRoute
from penstock.console.forms import Sent, SentForm
from penstock.console.navigation import BASE
from penstock.console.routes.batches import After
from penstock.console.session import LoggedIn, Visitor
from penstock.domain.api_errors import BadRequest

router = APIRouter(prefix=BASE, route_class=FormRoute)

_PAGE: Final = 40
_SIDE_BYTES: Final = 60_000
"""Of a page, for a request or a response."""
_MOST_DIGITS: Final = 9
"""Of a line's number."""
_OTHER: Final = "other"
"""The group of all codes that are in none of the others: the API has no filter for it."""
_NO_LINES: Final[dict[str, Any]] = {"data": [], "has_more": False, "next_after": None}

Group = Annotated[str, Query(max_length=110)]


@router.get("/batches/{id}/failed")
@router.get("/jobs/{id}/failed")
async def groups(request: Request, visitor: LoggedIn, noun: Named, id: str) -> Response:
    """How lines failed."""
    return await _groups(request, visitor, noun, id)


@router.get("/batches/{id}/failed/lines")
@router.get("/jobs/{id}/failed/lines")
async def lines(
    request: Request, visitor: LoggedIn, noun: Named, id: str, group: Group = "", after: After = None
) -> Response:
    """Failed lines, all or those of a group."""
    return await _lines(request, visitor, noun, id, group, after)


@router.get("/batches/{id}/lines/{number}")
@router.get("/jobs/{id}/lines/{number}")
async def line(request: Request, visitor: LoggedIn, noun: Named, id: str, number: int) -> Response:
    """One line: what was asked beside what came back."""
    return await _line(request, visitor, noun, id, number)


@router.post("/batches/{id}/failed/retry")
@router.post("/jobs/{id}/failed/retry")
async def retry(request: Request, visitor: LoggedIn, noun: Named, id: str, form: Sent) -> Response:
    """Ask lines again, as a batch or job of their own.

    It has its page then; else the page that the form is on comes again, with what was typed and what is wrong.
    """
    changes = line_forms.changes_of(form)
    try:
        body = {"lines": line_forms.asked_lines(form), **changes.asked()}
        made = await visitor.api.post(f"/v1{noun.path}/{id}/retry", body, headers=forms.once_headers(form["once"]))
    except (BadRequest, ApiProblem) as error:
        tried = {"problem": error.message, "status": error.status, "changes": changes, "ticked": _ticked(form)}
        if form["page"] == "lines":
            return await _lines(request, visitor, noun, id, form["of"], form["after"] or None, **tried)
        if form["page"].isdecimal() and len(form["page"]) <= _MOST_DIGITS:
            return await _line(request, visitor, noun, id, int(form["page"]), **tried)
        return await _groups(request, visitor, noun, id, **tried)
    return pages.redirect(request, f"{noun.path}/{made['id']}?done=retried")


async def _groups(request: Request, visitor: Visitor, noun: Noun, id: str, **tried: Any) -> Response:
    shown = await _frame(visitor, noun, id)
    errors = await visitor.api.get(f"/v1{noun.path}/{id}/errors")
    return _page(request, visitor, "failed.html", shown | {"errors": errors}, **tried)


async def _lines(
    request: Request, visitor: Visitor, noun: Noun, id: str, group: str, after: str | None, **tried: Any
) -> Response:
    shown = await _frame(visitor, noun, id)
    found = _NO_LINES
    try:
        query: dict[str, Any] = {"state": "failed", "limit": _PAGE, "after": after, **_filter(group)}
        found = await visitor.api.get(f"/v1{noun.path}/{id}/lines", query)
    except ApiProblem as error:
        tried = {"problem": error.message, "status": error.status} | tried
    kept = {"group": group} if group else {}
    values = {
        "list": found,
        "group": group,
        "code": group.partition(":")[2],
        "is_first": after is None,
        "first": f"?{urlencode(kept)}" if kept else "",
        "next": f"?{urlencode(kept | {'after': found['next_after'] or ''})}",
    }
    return _page(request, visitor, "failed_lines.html", shown | values, **tried)


async def _line(request: Request, visitor: Visitor, noun: Noun, id: str, number: int, **tried: Any) -> Response:
    shown = await _frame(visitor, noun, id)
    if not 0 < number < 10**_MOST_DIGITS:
        raise HTTPException(404)
    query: dict[str, Any] = {"after": number - 1, "limit": 1, "include": "request,response"}
    found = (await visitor.api.get(f"/v1{noun.path}/{id}/lines", query))["data"]
    if not found or found[0]["line"] != number:
        raise HTTPException(404)
    one = found[0]
    sides = [(name, title, _side(one[name])) for name, title in (("request", "Request"), ("response", "Response"))]
    tab = "failed" if one["state"] == "failed" else "results"
    return _page(request, visitor, "line.html", shown | {"line": one, "sides": sides, "tab": tab}, **tried)


def _side(text: dict[str, Any] | None) -> dict[str, Any] | None:
    """A request or response as it is shown; `cut` if something of it is not."""
    if text is None:
        return None
    laid_out = answers.laid_out(text["text"], text["cut"])
    shown = words.excerpt(laid_out, _SIDE_BYTES)
    return {"text": shown, "cut": text["cut"] or shown != words.visible(laid_out)}


def _ticked(form: SentForm) -> frozenset[str]:
    return frozenset([*form.all("group"), *form.all("line")])


def _filter(group: str) -> dict[str, str | None]:
    status, _, code = group.partition(":")
    if not code or code == _OTHER:
        return {}
    return {"code": code, "status_code": status if status != "-" else None}


async def _frame(visitor: Visitor, noun: Noun, id: str) -> dict[str, Any]:
    """What each of these pages has."""
    batch = await visitor.api.get(f"/v1{noun.path}/{id}")
    may_retry = visitor.writes and batch_words.has_ended(batch)
    models = (await visitor.api.get("/v1/models"))["data"] if may_retry else []
    return {"noun": noun, "batch": batch, "may_retry": may_retry, "models": [one["id"] for one in models]}


def _page(
    request: Request,
    visitor: Visitor,
    template: str,
    values: dict[str, Any],
    *,
    problem: str | None = None,
    status: int = 200,
    changes: LineChanges = NO_CHANGES,
    ticked: frozenset[str] = frozenset(),
) -> Response:
    given = {
        "tab": "failed",
        "problem": problem,
        "changes": changes,
        "ticked": ticked,
        "once": secrets.token_urlsafe(16),
        "value_of": line_forms.ticked_value,
        "after": request.query_params.get("after", ""),
        "other": _OTHER,
    }
    return pages.page(request, visitor, template, status, **(given | values))
