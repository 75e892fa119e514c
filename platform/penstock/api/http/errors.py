"""Errors on the wire: OpenAI's envelope for everything, so that every SDK can read what went wrong."""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from penstock.api.http import wording
from penstock.domain.api_errors import BadRequest, Internal, PenstockError, Unreadable

log = structlog.get_logger()


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str = Field(description="For people.")
    type: str = Field(description="The family, e.g. `invalid_request_error` or `server_error`.")
    param: str | None = Field(description="The part of the request that is at fault, if one is.")
    code: str | None = Field(description="For programs, e.g. `model_not_found`.")


class ErrorEnvelope(BaseModel):
    """Every error of this API."""

    error: ErrorBody


DOCUMENTED: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorEnvelope, "description": "The request is at fault; `error.code` says how."},
    "5XX": {"model": ErrorEnvelope, "description": "The platform is at fault; a 503 carries `retry-after`."},
}


def answer(error: PenstockError) -> JSONResponse:
    """The envelope of an error, with its status and headers."""
    body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return JSONResponse({"error": body}, error.status, error.headers)


def _plain(status: int, message: str, code: str, headers: dict[str, str] | None = None) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    body = {"message": message, "type": kind, "param": None, "code": code}
    return JSONResponse({"error": body}, status, headers)


def from_validation(errors: Any, skip: int = 0) -> BadRequest:
    """The first fault that pydantic found, without the value: that may be long, or private."""
    first = errors[0]
    path = [part for part in first["loc"][skip:] if isinstance(part, str | int)]
    of_a_key = path[-1:] == ["[key]"]  # it stands behind the key itself, which may be long
    if of_a_key:
        path = path[:-2]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".") or None
    if first["type"] == "missing":
        return BadRequest(f"Missing required parameter: '{param}'.", code="missing_required_parameter", param=param)
    if first["type"] == "extra_forbidden":
        return BadRequest(f"Unknown parameter: '{(param or '')[:100]}'.", code="unknown_parameter", param=param)
    words = ("of each key, " if of_a_key else "") + wording.of_pydantic(first)
    return BadRequest(f"Invalid '{(param or 'body')[:100]}': {words}.", param=param)


async def _domain(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PenstockError)
    return answer(error)


async def _validation(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return answer(from_validation(error.errors(), skip=1))


async def _unreadable(request: Request, error: Exception) -> JSONResponse:
    log.error("unreadable", error=str(error), path=request.url.path)
    return answer(Internal("The bytes of this file can't be read."))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path[:200]}"
    headers = dict(error.headers) if error.headers else None
    if error.status_code == 404:
        return _plain(404, f"Unknown request URL: {where}.", "unknown_url", headers)
    if error.status_code == 405:
        headers = {"allow": ", ".join(sorted(_allowed(request)))}
        return _plain(405, f"Not allowed here: {where}.", "method_not_allowed", headers)
    return _plain(error.status_code, str(error.detail), "invalid_request", headers)


def _allowed(request: Request) -> set[str]:
    """Every method of this path: the router names those of its first route alone, and no HEAD.

    A path of its own is no id of another: `/v1/batches/estimate` is not a batch of that name.
    """
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    paths = {route.path for route in routes}
    own = min(paths, key=lambda path: path.count("{"))
    found: set[str] = set().union(*(route.methods or () for route in routes if route.path == own))
    return found | ({"HEAD"} if "GET" in found else set())


def install(app: FastAPI) -> None:
    """Answer every kind of error in one shape."""
    app.add_exception_handler(PenstockError, _domain)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(Unreadable, _unreadable)
    app.add_exception_handler(HTTPException, _http)
