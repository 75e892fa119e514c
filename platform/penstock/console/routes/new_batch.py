"""`/console/batches/new`: a file is uploaded; then its own page says what it would take in each lane, and makes it."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from penstock.console import forms, pages
from penstock.console.api_client import ApiProblem
from penstock.console.batches import new_batch_form
from penstock.console.batches.estimate_words import LaneOutlook
from penstock.console.batches.new_batch_form import NewBatchForm
from penstock.console.context import Context
from penstock.console.form_route import FormRoute
from penstock.console.forms import OnceAsked, Sent, once_headers
from penstock.console.navigation import BASE
from penstock.console.session import LoggedIn, Visitor
from penstock.domain.api_errors import BadRequest, Forbidden
from penstock.domain.inference_endpoints import BATCHED
from penstock.domain.webhook import BATCH_EVENT_TYPES
from penstock.domain.work.lane import LANES

router = APIRouter(prefix=f"{BASE}/batches/new", route_class=FormRoute)

_PART_BYTES: Final = 8 * 1024 * 1024
_PEEKED_BYTES: Final = 64 * 1024
_URL: Final = re.compile(rb'"url"\s*:\s*"(/[a-z0-9/_]{1,60})"')
Asked = Annotated[str, Query(max_length=100)]


@router.get("")
async def choose(request: Request, visitor: LoggedIn, context: Context) -> Response:
    """Ask for the file."""
    _check_writes(visitor)
    return _chooser(request, visitor, context)


@router.post("")
async def upload(request: Request, visitor: LoggedIn, context: Context, once: OnceAsked = "") -> Response:
    """Take the file as a form brings it, for whoever has no scripts; the API reads it as it comes."""
    _check_writes(visitor)
    try:
        made = (await visitor.api.forward("POST", "/v1/files", once_headers(once))).json
    except ApiProblem as problem:
        return _chooser(request, visitor, context, problem)
    return pages.redirect(request, f"/batches/new/{made['id']}")


@router.get("/{file}")
async def ask(request: Request, visitor: LoggedIn, file: str, endpoint: Asked = "", on_invalid: Asked = "") -> Response:
    """What a batch of this file would take, and the form that makes it."""
    _check_writes(visitor)
    found = await visitor.api.get(f"/v1/files/{file}")
    form = new_batch_form.first(endpoint or await _endpoint_of(visitor, found), on_invalid)
    return await _form(request, visitor, found, form)


@router.post("/{file}")
async def create(request: Request, visitor: LoggedIn, file: str, sent: Sent) -> Response:
    """Make the batch; or, with the other button, say again what it would take."""
    _check_writes(visitor)
    found = await visitor.api.get(f"/v1/files/{file}")
    form = new_batch_form.typed(sent)
    if sent["act"] != "create":
        return await _form(request, visitor, found, form)
    try:
        made = await visitor.api.post("/v1/batches", form.create(file), forms.once_headers(form.token))
    except (ApiProblem, BadRequest) as problem:
        return await _form(request, visitor, found, form, problem)
    return pages.redirect(request, f"/batches/{made['id']}")


def _check_writes(visitor: Visitor) -> None:
    if not visitor.writes:
        raise Forbidden("A viewer's key makes no batches.", code="viewer_only_reads")


def _chooser(request: Request, visitor: Visitor, context: Context, problem: ApiProblem | None = None) -> Response:
    values = {
        "problem": problem,
        "most": context.settings,
        "part_bytes": _PART_BYTES,
    }
    return pages.page(request, visitor, "new_batch.html", problem.status if problem else 200, **values)


async def _form(
    request: Request,
    visitor: Visitor,
    file: dict[str, Any],
    form: NewBatchForm,
    problem: ApiProblem | BadRequest | None = None,
) -> Response:
    estimates, why_not = await _estimates(visitor, file["id"], form)
    found = [one for one in (why_not, problem) if one is not None]
    values = {
        "file": file,
        "form": form,
        "estimates": estimates,
        "estimate": next((one.estimate for one in estimates), None),
        "wrong": {new_batch_form.field_of(one.param): one.message for one in found},
        "endpoints": BATCHED,
        "events": BATCH_EVENT_TYPES,
        "models": [one["id"] for one in (await visitor.api.get("/v1/models"))["data"]],
    }
    return pages.page(request, visitor, "new_batch_file.html", found[-1].status if found else 200, **values)


async def _estimates(visitor: Visitor, file: str, form: NewBatchForm) -> tuple[list[LaneOutlook], ApiProblem | None]:
    """What it would take in each lane; or why nobody can say."""
    found: list[LaneOutlook] = []
    for lane in LANES:
        asked = form.terms(lane.value) | {"input_file_id": file}
        try:
            estimate = await visitor.api.post("/v1/batches/estimate", asked)
        except ApiProblem as problem:
            return [], problem
        found.append(LaneOutlook(lane.value, form.window, estimate))
    return found, None


async def _endpoint_of(visitor: Visitor, file: dict[str, Any]) -> str:
    """What the file's first line asks, as far as its first bytes say; else nothing."""
    if not file["bytes"]:
        return ""
    headers = {"range": f"bytes=0-{_PEEKED_BYTES - 1}"}
    seen = (await visitor.api.ask("GET", f"/v1/files/{file['id']}/content", headers=headers)).body
    line = seen.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0]
    try:
        url = json.loads(line)["url"]
    except (ValueError, KeyError, TypeError, RecursionError):
        match = _URL.search(line)
        url = match[1].decode() if match else ""
    return url if isinstance(url, str) else ""
