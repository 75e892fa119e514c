"""`/console/batches/bulk` (and of jobs): one act on those that were chosen, or on all that match; it asks first."""

from __future__ import annotations

import secrets
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from penstock.console import pages, qualifiers
from penstock.console.batches import batch_rows
from penstock.console.batches.nouns import Named
from penstock.console.form_route import FormRoute
from penstock.console.forms import Sent, SentForm, once_headers
from penstock.console.navigation import BASE
from penstock.console.session import LoggedIn
from penstock.domain.api_errors import BadRequest

router = APIRouter(prefix=BASE, route_class=FormRoute)

_ACTS: Final = {
    "pause": ("Pause", "Nothing more of them is started until they are resumed; their deadlines stay."),
    "resume": ("Resume", "Those that are paused go on at once."),
    "cancel": ("Cancel", "What is answered is kept; the rest goes to the error files. This can't be undone."),
    "retry": ("Retry failed lines of", "Failed lines of those that ended are asked again, each in a new one."),
}
_MOST: Final = 1_000
_MOST_RETRIED: Final = 100
"""What the API does at once."""


@router.post("/batches/bulk/ask")
@router.post("/jobs/bulk/ask")
async def ask(request: Request, visitor: LoggedIn, noun: Named, form: Sent) -> Response:
    """Ask whether it is meant so."""
    act, ids, everything = _read(form)
    problem = None if everything or ids else f"Choose some {noun.plural.lower()} first, or all that match."
    return pages.page(
        request,
        visitor,
        "batches_ask.html",
        400 if problem else 200,
        noun=noun,
        problem=problem,
        act=act,
        words=_ACTS[act],
        ids=ids,
        everything=everything,
        asked=form["q"],
        once=secrets.token_hex(16),
    )


@router.post("/batches/bulk")
@router.post("/jobs/bulk")
async def do(request: Request, visitor: LoggedIn, noun: Named, form: Sent) -> Response:
    """Do it, and show what came of it for each."""
    act, ids, everything = _read(form)
    filter = qualifiers.read(form["q"], batch_rows.QUALIFIERS) if everything else None
    body: dict[str, Any] = {"ids": ids}
    if filter is not None:
        body = {"filter": qualifiers.as_filter(filter), "after": form["after"] or None}
    headers = once_headers(f"{form['once']}-{form['after']}") if act == "retry" else None
    found = await visitor.api.post(f"/v1{noun.path}/{act}", body, headers)
    return pages.page(
        request,
        visitor,
        "batches_done.html",
        noun=noun,
        act=act,
        words=_ACTS[act],
        found=found,
        done=sum(one["outcome"] == "done" for one in found["data"]),
        asked=form["q"],
        once=form["once"],
    )


def _read(form: SentForm) -> tuple[str, list[str], bool]:
    act = form["act"]
    if act not in _ACTS:
        raise BadRequest("That is no act of this page.", param="act")
    return act, form.all("id")[: _MOST_RETRIED if act == "retry" else _MOST], form["all"] == "1"
