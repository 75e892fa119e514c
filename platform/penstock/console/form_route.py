"""Form routes: what a form asks is done once, however often that form is sent.

A page's forms hold its random token. The first of them that comes with a token, to this address and with this content
is done; others like it wait for it and get its answer, whichever API process they come to. One that was refused did
nothing, and may be sent again. Scripts, where there are any, stop a second click before it is sent (`console.js`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from penstock.console import forms, session
from penstock.console.api_client import ApiProblem
from penstock.console.context import ConsoleContext
from penstock.console.scope import TURN
from penstock.domain.api_errors import Conflict, PenstockError
from penstock.service.admin import sent_forms
from penstock.service.admin.sent_forms import FormAnswer, FormIdentity

FIELD: Final = "once"
"""The field that holds the token."""
_KEPT_HEADERS: Final = ("content-type", "location", "cache-control")
_DONE: Final = "This form was sent twice. What it asks was done once: look at its list."
_BEGUN: Final = "This form was sent twice, and the first may be done or not: look at its list, and send it from there."
_MOST_SECONDS: Final = 10.0
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 1.0
_REFUSALS: Final = (ApiProblem, PenstockError, HTTPException, RequestValidationError, session.NotLoggedIn)
"""What a handler raises that has not done what was asked, if it is not the server's own fault."""

_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class FormRoute(APIRoute):
    """A route of the console whose forms are done once."""

    def get_route_handler(self) -> _Handler:
        """The route's handler, behind a look at what was sent before."""
        handle = super().get_route_handler()
        if "POST" not in self.methods:
            return handle

        async def once(request: Request) -> Response:
            if not forms.is_form(request):
                return await handle(request)
            context: ConsoleContext = request.app.state.context()
            visitor = await session.recognized(request, context)
            sent = await forms.sent(request)
            if not forms.TOKEN.fullmatch(sent[FIELD]):
                return await handle(request)
            says = f"{request.url.path}?{request.url.query} ".encode() + sent.raw
            return await _once(context, FormIdentity(visitor.token, sent[FIELD], says), request, handle)

        return once


async def _once(context: ConsoleContext, form: FormIdentity, request: Request, handle: _Handler) -> Response:
    while not await context.db.run(sent_forms.take, form):
        if answer := await _as_before(context, form, request):
            return answer
    try:
        answer = await handle(request)
    except _REFUSALS as problem:
        if _status(problem) < 500:  # else it may be done all the same
            await context.db.run(sent_forms.give_back, form)
        raise
    if answer.status_code >= 400:
        await context.db.run(sent_forms.give_back, form)
    else:
        headers = {name: answer.headers[name] for name in _KEPT_HEADERS if name in answer.headers}
        await context.db.run(sent_forms.keep, form, FormAnswer(answer.status_code, headers, bytes(answer.body)))
    return answer


def _status(problem: Exception) -> int:
    if isinstance(problem, HTTPException):
        return problem.status_code
    return problem.status if isinstance(problem, ApiProblem | PenstockError) else 400


async def _as_before(context: ConsoleContext, form: FormIdentity, request: Request) -> Response | None:
    """The answer that the same form got; None if it was refused. Raises Conflict where there is none to be shown."""
    request.scope[TURN].leave()  # who waits for another's answer keeps nobody from theirs
    pause_seconds, end = _FIRST_PAUSE_SECONDS, time.monotonic() + _MOST_SECONDS
    while time.monotonic() < end:
        found = await context.db.autocommit(sent_forms.before, form)
        if found is None:
            return None
        if found.answer is not None:
            return Response(found.answer.body, found.answer.status, found.answer.headers)
        if found.done:
            raise Conflict("done", "done again", _DONE)
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
    raise Conflict("begun", "begun again", _BEGUN)
