"""`/v1/jobs`: one request or a few, without a file; small jobs bring their results along."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import Field

from penstock.api.auth import Acting, Known, Tenant, access_of
from penstock.api.http import body, request_turns
from penstock.api.http.body import Asked, Text
from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here
from penstock.api.repeats import Repeats
from penstock.api.routes import retry, steering, webhooks
from penstock.api.routes.batches import Wait
from penstock.api.schemas import batch_filters, batch_totals, shapes
from penstock.api.schemas.batch_filters import Chosen
from penstock.api.schemas.batch_totals import TotalsShape
from penstock.api.schemas.paging import After, Limit
from penstock.api.schemas.shapes import DeletedBatch, JobShape, Page
from penstock.api.schemas.terms import Create
from penstock.domain.api_errors import BadRequest, TooLarge
from penstock.domain.limits.limit import LimitName
from penstock.domain.work.terms import DEFAULT_WINDOW
from penstock.service.control import cancel, delete
from penstock.service.intake import submit
from penstock.service.intake.submit import JobLine
from penstock.service.views import batch_list, batch_view
from penstock.service.views.batch_view import BatchView

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses=DOCUMENTED)


class JobRequest(Asked):
    """One request of a job."""

    custom_id: Text | None = Field(None, description="Comes back with the answer; `request-<n>` unless told otherwise.")
    body: dict[str, Any]


class CreateJob(Create):
    """One `body`, or `requests` with a body each."""

    model: Text | None = Field(None, description="For bodies that name no model.", min_length=1, max_length=200)
    endpoint: Text = Field("/v1/chat/completions", description="What every request asks.")
    body: dict[str, Any] | None = None
    requests: list[JobRequest] | None = None
    completion_window: Text = Field(DEFAULT_WINDOW, description="Any `<n>m`, `<n>h`, `<n>d`.")


class _One(msgspec.Struct, forbid_unknown_fields=True):
    body: msgspec.Raw
    custom_id: str | None = None


class _Fields(msgspec.Struct, forbid_unknown_fields=True):
    """The body as the bytes of its fields, empty where one is missing.

    Requests stay bytes: they go to the engine as their sender wrote them, and as objects 16 MiB would be half a GiB.
    """

    body: msgspec.Raw = msgspec.Raw()
    requests: msgspec.Raw = msgspec.Raw()
    model: msgspec.Raw = msgspec.Raw()
    endpoint: msgspec.Raw = msgspec.Raw()
    lane: msgspec.Raw = msgspec.Raw()
    completion_window: msgspec.Raw = msgspec.Raw()
    metadata: msgspec.Raw = msgspec.Raw()
    output_expires_after: msgspec.Raw = msgspec.Raw()
    dedup: msgspec.Raw = msgspec.Raw()
    plan: msgspec.Raw = msgspec.Raw()
    cache: msgspec.Raw = msgspec.Raw()
    on_invalid: msgspec.Raw = msgspec.Raw()
    trace: msgspec.Raw = msgspec.Raw()
    webhook: msgspec.Raw = msgspec.Raw()


_SMALL = (
    "model",
    "endpoint",
    "lane",
    "completion_window",
    "metadata",
    "output_expires_after",
    "dedup",
    "plan",
    "cache",
    "on_invalid",
    "trace",
    "webhook",
)
_MAX_SMALL_BYTES = 64 * 1024


@router.post("", summary="Create a job", openapi_extra=body.documented(CreateJob), response_model=JobShape)
async def create_job(request: Request, tenant: Known, here: Here, repeats: Repeats) -> Response:
    """Run one request or a few. Small jobs of one model start at once; larger ones are validated as a batch is.

    A small job with a bad request is refused (400), whatever `on_invalid` says; so is any with a custom_id twice.
    """
    access_of(request).check_budget()
    raw = await body.read(request, here.settings.max_json_bytes)
    if len(raw) <= _MAX_SMALL_BYTES:
        asked, asks = parse(raw, here.settings.max_job_requests)
    else:  # off the event loop, since some MiB take a while
        asked, asks = await asyncio.to_thread(parse, raw, here.settings.max_job_requests)
    once = await repeats.once(b"job" + raw)
    wish = await webhooks.wished(here, asked.webhook)
    terms = asked.terms(wish, access_of(request))
    made = await submit.create_job(
        here.db, here.blobs, here.intake, tenant, asks, asked.model, terms, once, here.settings
    )
    view = await webhooks.seen(here, tenant, await here.intake.seen(made), wish)
    await repeats.answering(once, made.id)
    return _respond(view)


def parse(raw: bytes, max_requests: int) -> tuple[CreateJob, list[JobLine]]:
    fields = body.decode(raw, _Fields)
    asked = body.check(CreateJob, {name: _small(name, value) for name in _SMALL if (value := getattr(fields, name))})
    has_body, has_requests = (bytes(value) not in (b"", b"null") for value in (fields.body, fields.requests))
    if has_body == has_requests:
        raise BadRequest("Send either 'body' or 'requests'.", param="body")
    if has_body:
        return asked, [JobLine(None, _on_one_line(fields.body, "body"), "")]
    too_many = TooLarge(f"A job holds at most {max_requests} requests: send more as a file.", param="requests")
    if bytes(fields.requests).count(b'"body"') > max_requests:  # before they are made objects
        raise too_many
    requests: list[_One] = body.decode(fields.requests, list[_One], "requests")
    if not requests:
        raise BadRequest("'requests' is empty.", param="requests")
    if len(requests) > max_requests:
        raise too_many
    return asked, [_ask(one, f"requests[{index}]") for index, one in enumerate(requests)]


def _small(name: str, value: msgspec.Raw) -> Any:
    if len(bytes(value)) > _MAX_SMALL_BYTES:
        raise BadRequest(f"{name!r} is longer than {_MAX_SMALL_BYTES} bytes.", param=name)
    return body.decode(value)


def _ask(one: _One, where: str) -> JobLine:
    if one.custom_id is not None and "\0" in one.custom_id:
        raise BadRequest("A custom_id holds a NUL character.", param=f"{where}.custom_id")
    return JobLine(one.custom_id, _on_one_line(one.body, f"{where}.body"), where)


def _on_one_line(json: msgspec.Raw, where: str) -> bytes:
    line = msgspec.json.format(bytes(json), indent=-1)
    if not line.startswith(b"{"):
        raise BadRequest(f"{where!r} must be a JSON object.", param=where)
    return line


@router.get("", summary="List jobs", openapi_extra=batch_filters.DOCUMENTED)
async def list_jobs(
    tenant: Tenant, here: Here, chosen: Chosen, after: After = None, limit: Limit = 20
) -> Page[JobShape]:
    """Your jobs, newest first, without their results: all, or those of which all that is given is so."""
    found = await here.db.autocommit(
        batch_list.page, tenant, "job", here.settings, chosen=chosen, after=after, limit=limit + 1
    )
    return shapes.page([shapes.job(one) for one in found], limit, JobShape)


@router.get("/totals", summary="Count jobs")
async def get_job_totals(tenant: Tenant, here: Here) -> TotalsShape:
    """How many jobs you have, by status and lane."""
    return batch_totals.totals(await here.db.autocommit(batch_list.totals, tenant, "job"), "job")


@router.get("/{job_id}", summary="Look at a job", response_model=JobShape)
async def get_job(request: Request, job_id: str, tenant: Known, here: Here, wait: Wait = 0) -> Response:
    """State and counts as of now; with `?wait=`, as soon as it has ended. A small job's results come along."""
    if wait:
        seconds = min(wait, here.settings.max_wait_seconds)
        with here.limiter.held(access_of(request), LimitName.WAITS):
            async with request_turns.of(request.scope).away():
                await here.completion_waiter.wait(tenant, "job", job_id, seconds, request.is_disconnected)
    return _respond(await here.db.autocommit(batch_view.view, tenant, "job", job_id, here.settings))


@router.delete("/{job_id}", summary="Delete a job")
async def delete_job(job_id: str, tenant: Tenant, here: Acting) -> DeletedBatch:
    """Delete a job that has ended, with its results; its usage stays counted.

    409 until it has ended, and while a retry of it is there.
    """
    await here.db.run(delete.delete, tenant, "job", job_id)
    return DeletedBatch(id=job_id, object="job")


@router.post("/{job_id}/cancel", summary="Cancel a job", response_model=JobShape)
async def cancel_job(job_id: str, tenant: Tenant, here: Acting) -> Response:
    """Stop a job: what is answered is kept. 409 if it has ended."""
    return _respond(BatchView(await here.db.run(cancel.cancel, tenant, "job", job_id)))


@router.post(
    "/{job_id}/retry",
    summary="Retry requests of a job",
    response_model=JobShape,
    openapi_extra=body.documented(retry.CreateRetry),
)
async def retry_job(request: Request, job_id: str, tenant: Tenant, here: Here, repeats: Repeats) -> Response:
    """Ask failed (or empty) requests of an ended job again, as a job whose results are in files.

    As `/v1/batches/{batch_id}/retry`.
    """
    return _respond(await retry.retry(request, here, tenant, "job", job_id, repeats))


@router.patch(
    "/{job_id}", summary="Change a job", response_model=JobShape, openapi_extra=body.documented(steering.Change)
)
async def change_job(request: Request, job_id: str, tenant: Tenant, here: Acting) -> Response:
    """Give a job another lane, window or metadata, in force within one slice. 409 if it is closing or has ended."""
    return _respond(await steering.change(request, here, tenant, "job", job_id))


@router.post("/{job_id}/pause", summary="Pause a job", response_model=JobShape)
async def pause_job(job_id: str, tenant: Tenant, here: Acting) -> Response:
    """Start nothing more of a job in progress; what runs ends. Its deadline stays."""
    return _respond(await steering.pause(here, tenant, "job", job_id))


@router.post("/{job_id}/resume", summary="Resume a job", response_model=JobShape)
async def resume_job(job_id: str, tenant: Tenant, here: Acting) -> Response:
    """Let a paused job go on at once."""
    return _respond(await steering.resume(here, tenant, "job", job_id))


def _respond(view: BatchView) -> Response:
    """The job as JSON; its results are the very bytes that were recorded."""
    json = shapes.job(view).model_dump_json().encode()
    if view.results is not None:
        json = json.removesuffix(b'"results":null}') + b'"results":[' + b",".join(view.results) + b"]}"
    return Response(json, media_type="application/json")
