"""`/console/batches/{id}` and `/console/jobs/{id}`: one of them, whole."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from penstock.console import batch_words, pages
from penstock.console.forms import Sent
from penstock.console.navigation import BASE
from penstock.console.routes.batches import BATCHES, JOBS, Noun
from penstock.console.session import LoggedIn, Visitor

router = APIRouter(prefix=BASE)

_NOTICES = {
    "paused": "Paused: nothing more of it is started.",
    "resumed": "It goes on.",
    "cancelled": "It is being cancelled: what is answered is kept.",
    "changed": "Changed.",
}


@router.get("/batches/{id}")
async def batch(request: Request, visitor: LoggedIn, id: str) -> Response:
    """One batch."""
    return await _shown(request, visitor, BATCHES, id)


@router.get("/jobs/{id}")
async def job(request: Request, visitor: LoggedIn, id: str) -> Response:
    """One job."""
    return await _shown(request, visitor, JOBS, id)


@router.post("/batches/{id}/{act}")
async def act_on_batch(request: Request, visitor: LoggedIn, id: str, act: str, form: Sent) -> Response:
    """Pause, resume, change or cancel a batch."""
    return await _done(request, visitor, BATCHES, id, act)


@router.post("/jobs/{id}/{act}")
async def act_on_job(request: Request, visitor: LoggedIn, id: str, act: str, form: Sent) -> Response:
    """Pause, resume, change or cancel a job."""
    return await _done(request, visitor, JOBS, id, act)


_ACTS = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}


async def _shown(request: Request, visitor: Visitor, noun: Noun, id: str) -> Response:
    one = await visitor.api.get(f"/v1{noun.path}/{id}")
    values = {"noun": noun, "batch": one, "notices": _NOTICES, "verdict": batch_words.verdict(one)}
    return pages.page(request, visitor, "batch.html", **values)


async def _done(request: Request, visitor: Visitor, noun: Noun, id: str, act: str) -> Response:
    await visitor.api.post(f"/v1{noun.path}/{id}/{act}")
    return pages.redirect(request, f"{noun.path}/{id}?done={_ACTS[act]}")
