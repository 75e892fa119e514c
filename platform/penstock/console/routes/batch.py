"""`/console/batches/{id}` and `/console/jobs/{id}`: one of them, whole, and what can be done to it."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from penstock.console import forms, pages
from penstock.console.api_client import ApiProblem
from penstock.console.batches import batch_live
from penstock.console.batches.nouns import Named, Noun
from penstock.console.form_route import FormRoute
from penstock.console.forms import Sent, SentForm
from penstock.console.navigation import BASE
from penstock.console.routes.batches import Live
from penstock.console.session import LoggedIn, Visitor
from penstock.domain.api_errors import BadRequest

router = APIRouter(prefix=BASE, route_class=FormRoute)

_NOTICES: Final = {
    "paused": "Paused: nothing more of it is started.",
    "resumed": "It goes on.",
    "cancelled": "It is being cancelled: what is answered is kept.",
    "changed": "Changed: in force within one slice.",
    "retried": "This is the retry: the failed lines are asked again here.",
}


@router.get("/batches/{id}")
@router.get("/jobs/{id}")
async def one(request: Request, visitor: LoggedIn, noun: Named, id: str, live: Live = "on") -> Response:
    """One batch or job."""
    return await _shown(request, visitor, noun, id, live=live != "off")


@router.post("/batches/{id}/pause")
@router.post("/jobs/{id}/pause")
async def pause(request: Request, visitor: LoggedIn, noun: Named, id: str, form: Sent) -> Response:
    """Start nothing more of it."""
    return await _done(request, visitor, noun, id, "pause", "paused")


@router.post("/batches/{id}/resume")
@router.post("/jobs/{id}/resume")
async def resume(request: Request, visitor: LoggedIn, noun: Named, id: str, form: Sent) -> Response:
    """Let it go on."""
    return await _done(request, visitor, noun, id, "resume", "resumed")


@router.post("/batches/{id}/cancel")
@router.post("/jobs/{id}/cancel")
async def cancel(request: Request, visitor: LoggedIn, noun: Named, id: str, form: Sent) -> Response:
    """Stop it; what is answered is kept."""
    return await _done(request, visitor, noun, id, "cancel", "cancelled")


@router.post("/batches/{id}/change")
@router.post("/jobs/{id}/change")
async def change(request: Request, visitor: LoggedIn, noun: Named, id: str, form: Sent) -> Response:
    """Another lane, window or metadata."""
    try:
        await visitor.api.patch(f"/v1{noun.path}/{id}", _changes(form))
    except (BadRequest, ApiProblem) as error:
        if error.status not in (400, 409):
            raise
        typed = {name: form[name] for name in ("lane", "window", "metadata")}
        return await _shown(request, visitor, noun, id, error.status, typed=typed, problem=error.message)
    return pages.redirect(request, f"{noun.path}/{id}?done=changed")


@router.post("/batches/{id}/retry")
@router.post("/jobs/{id}/retry")
async def retry(request: Request, visitor: LoggedIn, noun: Named, id: str, form: Sent) -> Response:
    """Ask its failed lines again, once for a page that was shown."""
    made = await visitor.api.post(f"/v1{noun.path}/{id}/retry", None, forms.once_headers(form["once"]))
    return pages.redirect(request, f"{noun.path}/{made['id']}?done=retried")


@router.post("/batches/{id}/delete")
@router.post("/jobs/{id}/delete")
async def delete(request: Request, visitor: LoggedIn, noun: Named, id: str, form: Sent) -> Response:
    """Delete it with its results."""
    await visitor.api.delete(f"/v1{noun.path}/{id}")
    return pages.redirect(request, f"{noun.path}?done=deleted")


async def _done(request: Request, visitor: Visitor, noun: Noun, id: str, act: str, notice: str) -> Response:
    await visitor.api.post(f"/v1{noun.path}/{id}/{act}")
    return pages.redirect(request, f"{noun.path}/{id}?done={notice}")


async def _shown(
    request: Request,
    visitor: Visitor,
    noun: Noun,
    id: str,
    status: int = 200,
    *,
    live: bool = True,
    typed: dict[str, str] | None = None,
    problem: str | None = None,
) -> Response:
    values = await batch_live.found(visitor, noun, id)
    more: dict[str, Any] = {
        "notices": _NOTICES,
        "live": live,
        "typed": typed or _terms(values["batch"]),
        "problem": problem,
        "server": str(request.base_url).rstrip("/"),
    }
    return pages.page(request, visitor, "batch.html", status, **values, **more)


def _terms(batch: dict[str, Any]) -> dict[str, str]:
    """Its terms as the form has them."""
    pairs = "\n".join(f"{key}={value}" for key, value in (batch["metadata"] or {}).items())
    return {"lane": batch["lane"], "window": "", "metadata": pairs}


def _changes(form: SentForm) -> dict[str, Any]:
    """What the API is asked to change; raises BadRequest."""
    asked: dict[str, Any] = {"metadata": _pairs(form["metadata"])} if "metadata" in form else {}
    if form["lane"]:
        asked["lane"] = form["lane"]
    if form["window"]:
        asked["completion_window"] = form["window"]
    return asked


def _pairs(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        key, equals, value = line.partition("=")
        if not equals or not key.strip():
            raise BadRequest(
                f"Metadata is written as key=value, one a line; this is not: '{line[:60]}'.", param="metadata"
            )
        pairs[key.strip()] = value.strip()
    return pairs
