"""`/console/batches/bulk` (and of jobs): one act on those that were chosen, or on all that match; it asks first."""

from __future__ import annotations

import secrets
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from penstock.console import pages, qualifiers
from penstock.console.api_client import ApiProblem
from penstock.console.batches import batch_rows
from penstock.console.batches.nouns import Named, Noun
from penstock.console.form_route import FormRoute
from penstock.console.forms import Sent, SentForm
from penstock.console.navigation import BASE
from penstock.console.session import LoggedIn, Visitor
from penstock.domain.api_errors import BadRequest

router = APIRouter(prefix=BASE, route_class=FormRoute)

_ACTS: Final = {
    "pause": ("Pause", "Nothing more of them is started until they are resumed; their deadlines stay."),
    "resume": ("Resume", "Those that are paused go on at once."),
    "cancel": ("Cancel", "What is answered is kept; the rest goes to the error files. This can't be undone."),
    "retry": ("Retry failed lines of", "Failed lines of those that ended are asked again, each in a new one."),
}
_MOST_RETRIED: Final = 100
"""Each is a call of its own."""


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
    if act == "retry":
        found = await _retried(visitor, noun, ids, filter, form)
    else:
        body: dict[str, Any] = {"ids": ids}
        if filter is not None:
            body = {"filter": qualifiers.as_filter(filter), "after": form["after"] or None}
        found = await visitor.api.post(f"/v1{noun.path}/{act}", body)
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
    return act, form.all("id")[:1_000], form["all"] == "1"


async def _retried(
    visitor: Visitor, noun: Noun, ids: list[str], filter: dict[str, str] | None, form: SentForm
) -> dict[str, Any]:
    """One by one, as the API has no such call for many; its answer has the shape of theirs."""
    last, more = None, False
    if filter is not None:
        query: dict[str, Any] = dict(filter)
        page = await visitor.api.get(
            f"/v1{noun.path}", query | {"after": form["after"] or None, "limit": _MOST_RETRIED}
        )
        ids, last, more = [one["id"] for one in page["data"]], page["last_id"], page["has_more"]
    outcomes = [await _retry(visitor, noun, id, form["once"]) for id in ids[:_MOST_RETRIED]]
    return {"data": outcomes, "last_id": last, "has_more": more}


async def _retry(visitor: Visitor, noun: Noun, id: str, once: str) -> dict[str, Any]:
    headers = {"idempotency-key": f"console-{once}-{id}"} if f"{once}{id}".replace("_", "").isalnum() else None
    try:
        made = await visitor.api.post(f"/v1{noun.path}/{id}/retry", None, headers)
    except ApiProblem as problem:
        return {"id": id, "outcome": "failed", "status": None, "error": {"message": problem.message}, "retry": None}
    return {"id": id, "outcome": "done", "status": made["status"], "error": None, "retry": made["id"]}
