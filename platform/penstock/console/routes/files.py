"""`/console/files`: what was uploaded and produced: list, upload, download, delete."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from starlette.types import Message

from penstock.console import pages
from penstock.console.api_client import ApiProblem
from penstock.console.form_route import FormRoute
from penstock.console.form_values import FormRefused
from penstock.console.forms import OnceAsked, once_headers
from penstock.console.navigation import BASE
from penstock.console.paging import After, first, following
from penstock.console.relayed import RelayedAnswer
from penstock.console.session import LoggedIn, Visitor
from penstock.domain.file import UPLOADED

router = APIRouter(prefix=BASE, route_class=FormRoute)

_PURPOSES: Final = (*UPLOADED, "batch_output")
_NOTICES: Final = {"uploaded": "The file is there, whole.", "deleted": "The file is deleted."}
_Purpose = Annotated[str, Query(max_length=100)]


@router.get("/files")
async def files(request: Request, visitor: LoggedIn, purpose: _Purpose = "", after: After = None) -> Response:
    """Files of the visitor's tenant, newest first."""
    return await _listed(request, visitor, purpose, after)


@router.post("/files")
async def upload(request: Request, visitor: LoggedIn, once: OnceAsked = "") -> Response:
    """Upload a file: the form goes to the API as it comes, piece by piece, and only the answer is read here."""
    status, answer = 500, bytearray()

    async def keep(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body":
            answer.extend(message.get("body", b""))

    await visitor.api.relay("POST", "/v1/files", keep, headers=once_headers(once))
    told = json.loads(answer)
    if status >= 400:
        return await _listed(request, visitor, "", None, FormRefused(told["error"]["message"]), status)
    return pages.redirect(request, f"/files/{told['id']}?done=uploaded")


@router.get("/files/{file}")
async def file(request: Request, visitor: LoggedIn, file: str) -> Response:
    """One file."""
    found = await visitor.api.get(f"/v1/files/{file}")
    return pages.page(request, visitor, "file.html", file=found, notices=_NOTICES)


@router.get("/files/{file}/content")
async def content(request: Request, visitor: LoggedIn, file: str) -> Response:
    """Its bytes, to be saved: never shown as a page, whatever they are."""
    await visitor.api.get(f"/v1/files/{file}")  # one that is not there has its page
    return RelayedAnswer(visitor.api, "GET", f"/v1/files/{file}/content")


@router.post("/files/{file}/delete")
async def delete(request: Request, visitor: LoggedIn, file: str) -> Response:
    """Delete a file."""
    await visitor.api.delete(f"/v1/files/{file}")
    return pages.redirect(request, "/files?done=deleted")


async def _listed(
    request: Request,
    visitor: Visitor,
    purpose: str,
    after: str | None,
    problem: FormRefused | ApiProblem | None = None,
    status: int = 200,
) -> Response:
    found = await visitor.api.get("/v1/files", {"purpose": purpose or None, "after": after, "limit": 50})
    values: dict[str, Any] = {
        "list": found,
        "purpose": purpose,
        "purposes": _PURPOSES,
        "uploaded": UPLOADED,
        "problem": problem,
        "is_first": after is None,
        "next": following(found, purpose=purpose),
        "first": first(purpose=purpose),
        "server": str(request.base_url).rstrip("/"),
        "notices": _NOTICES,
    }
    return pages.page(request, visitor, "files.html", status, **values)
