"""The console as an application of its own: its pages, its errors as pages, and the guard around them."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from penstock.console import assets, pages, session
from penstock.console.api_client import ApiProblem
from penstock.console.context import ConsoleContext
from penstock.console.guard import ConsoleGuard
from penstock.console.live.live_pages import LivePages
from penstock.console.routes import (
    audit,
    batch,
    batch_bulk,
    batch_files,
    batch_streams,
    batches,
    deliveries,
    failed_lines,
    files,
    lanes,
    limits,
    login,
    models,
    new_batch,
    overview,
    pools,
    recovery,
    result_exports,
    results,
    tail,
    tenant_keys,
    tenants,
    uploads,
    usage,
    webhooks,
    workers,
)
from penstock.console.session import NotLoggedIn
from penstock.domain.api_errors import PenstockError


def create_console(context: Callable[[], ConsoleContext]) -> FastAPI:
    """Make the console; `context` is asked once requests come."""
    app = FastAPI(title="Penstock console", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.context = context
    app.state.live_pages = LivePages()
    for room in (
        assets, login, batches, new_batch, uploads, batch_streams, batch_bulk, batch, batch_files, failed_lines,
        results, tail, result_exports, files, webhooks, deliveries, usage, limits, tenants, tenant_keys, recovery,
        overview, workers, models, pools, lanes, audit,
    ):  # fmt: skip
        app.router.routes += room.router.routes  # as they stand: include_router would make each of them anew
    for kind, shown in (
        (NotLoggedIn, _to_login), (ApiProblem, _problem), (PenstockError, _problem),
        (RequestValidationError, _bad_request), (HTTPException, _http),
    ):  # fmt: skip
        app.add_exception_handler(kind, shown)
    app.add_middleware(ConsoleGuard)
    return app


async def _to_login(request: Request, _: Exception) -> Response:
    """The login, and after it the page that was asked for."""
    if request.headers.get("accept", "").startswith("text/event-stream"):
        return Response(status_code=401)
    answer = login.shown(request, then=login.place_of(request), status=401)
    session.take(request, answer)
    return answer


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiProblem | PenstockError)
    answer = _error_page(request, error.status, error.message)
    if "retry-after" in (error.headers or {}):
        answer.headers["retry-after"] = (error.headers or {})["retry-after"]
    return answer


async def _bad_request(request: Request, error: Exception) -> Response:
    return _error_page(request, 400, "The address or the form of this page is not as this console makes it.")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = "There is no such page." if error.status_code == 404 else str(error.detail)
    return _error_page(request, error.status_code, words)


def _error_page(request: Request, status: int, message: str) -> Response:
    return pages.page(request, session.visitor_of(request), "error.html", status, code=status, message=message)
