"""`/console/login`: a key is typed in once, and a session stands for it until it is idle, ended or revoked."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from penstock.console import pages, session
from penstock.console.context import Context
from penstock.console.forms import Sent
from penstock.console.navigation import BASE
from penstock.console.scope import REQUEST_ID, TURN
from penstock.domain.accounts.audit import Actor
from penstock.domain.api_errors import Unauthorized
from penstock.service.admin import keys, sessions

router = APIRouter(prefix=BASE)

_WRONG = "This key is not valid: it was mistyped, revoked, or has ended."


def shown(request: Request, *, then: str = "", wrong: str | None = None, status: int = 200) -> Response:
    """The login page; afterwards it goes on to `then`, a page of the console."""
    return pages.page(request, None, "login.html", status, then=then, wrong=wrong)


def place_of(request: Request) -> str:
    """The page that was asked for, to come back to; of a form that was sent, nothing."""
    if request.method != "GET":
        return ""
    root = str(request.scope.get("root_path", "")) + BASE
    query = f"?{request.url.query}" if request.url.query else ""
    return request.url.path.removeprefix(root) + query


@router.get("")
@router.get("/")
async def start(request: Request) -> Response:
    """The first page."""
    return pages.redirect(request, "/batches")


@router.get("/login")
async def ask(request: Request, then: Annotated[str, Query()] = "") -> Response:
    """Ask for a key."""
    return shown(request, then=then)


@router.post("/login")
async def log_in(request: Request, context: Context, form: Sent) -> Response:
    """Open a session. Wrong keys are answered late where many come."""
    try:
        access = await context.key_cache.access_of(form["key"])
    except Unauthorized:
        request.scope[TURN].leave()  # who is told late keeps nobody waiting
        try:
            await context.key_cache.refuse()
        except Unauthorized:
            return shown(request, then=form["then"], wrong=_WRONG, status=401)
    actor = Actor(access.key, request.scope[REQUEST_ID])
    valid = await context.db.autocommit(keys.access_of, form["key"])
    token = await context.db.by(actor).run(sessions.open_session, valid)
    answer = pages.redirect(request, form["then"] if form["then"].startswith("/") else "/")
    session.give(request, answer, token)
    return answer


@router.post("/logout")
async def log_out(request: Request, context: Context) -> Response:
    """End the session."""
    if token := session.token_of(request):
        await context.db.autocommit(sessions.end, token)
    answer = pages.redirect(request, "/login")
    session.take(request, answer)
    return answer
