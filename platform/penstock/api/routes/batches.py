"""`/v1/batches`: OpenAI's Batch API, with lanes, steering and a long poll beside it."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from penstock.api.auth import Acting, Tenant, access_of
from penstock.api.http import body, content, request_turns
from penstock.api.http.body import Text
from penstock.api.http.errors import DOCUMENTED
from penstock.api.http.request_middleware import HEAD
from penstock.api.platform import Here
from penstock.api.repeats import Repeats
from penstock.api.routes import retry, steering, webhooks
from penstock.api.routes.steering import Change
from penstock.api.schemas import batch_filters, batch_totals, shapes
from penstock.api.schemas.answer_page import ANSWER_PAGE, Cursor, LineLimit
from penstock.api.schemas.batch_filters import Chosen
from penstock.api.schemas.batch_totals import TotalsShape
from penstock.api.schemas.paging import After, Limit
from penstock.api.schemas.shapes import BatchShape, DeletedBatch, Page
from penstock.api.schemas.terms import Create
from penstock.domain.api_errors import BadRequest
from penstock.domain.limits.limit import LimitName
from penstock.domain.work.line_query import MOST_LINE, LineQuery
from penstock.service.control import cancel, delete
from penstock.service.intake import submit
from penstock.service.results import answer_page, line_page
from penstock.service.views import batch_list, batch_view
from penstock.service.views.batch_view import BatchView

router = APIRouter(prefix="/v1/batches", tags=["batches"], responses=DOCUMENTED)

MAX_BATCH_JSON_BYTES = 256 * 1024

Wait = Annotated[
    float,
    Query(ge=0, allow_inf_nan=False, description="Answer once it has ended, or after so many seconds (at most 60)."),
]


class CreateBatch(Create):
    """A batch to be made of an uploaded file."""

    input_file_id: Text = Field(description="A file with the purpose `batch`: JSONL, one request a line.")
    endpoint: Text = Field(description="What every line asks, e.g. `/v1/chat/completions`.")
    model: Text | None = Field(
        None,
        description="What lines ask that name no model. Left out, they ask the only model that your key may ask, if "
        "`/v1/models` lists just one; else they are refused.",
        min_length=1,
        max_length=200,
    )
    completion_window: Text = Field(description="`24h`, or any `<n>m`, `<n>h`, `<n>d`; then it expires.")


@router.post("", summary="Create a batch", openapi_extra=body.documented(CreateBatch))
async def create_batch(request: Request, tenant: Tenant, here: Here, repeats: Repeats) -> BatchShape:
    """Start a batch: it is validated, planned, run lane by lane, and answered in files, in the order of its lines."""
    access_of(request).check_budget()
    raw = await body.read(request, MAX_BATCH_JSON_BYTES)
    asked = body.check(CreateBatch, body.decode(raw))
    once = await repeats.once(b"batch" + raw)
    wish = await webhooks.wished(here, asked.webhook)
    terms = dataclasses.replace(asked.terms(wish, access_of(request)), default_model=asked.model)
    made = await here.db.run(submit.create_batch, tenant, asked.input_file_id, terms, once, here.settings)
    view = await webhooks.seen(here, tenant, BatchView(made), wish)
    await repeats.answering(once, made.id)
    return shapes.batch(view)


@router.get("", summary="List batches", openapi_extra=batch_filters.DOCUMENTED)
async def list_batches(
    tenant: Tenant, here: Here, chosen: Chosen, after: After = None, limit: Limit = 20
) -> Page[BatchShape]:
    """Your batches, newest first: all, or those of which all that is given is so."""
    found = await here.db.autocommit(
        batch_list.page, tenant, "batch", here.settings, chosen=chosen, after=after, limit=limit + 1
    )
    return shapes.page([shapes.batch(one) for one in found], limit, BatchShape)


@router.get("/totals", summary="Count batches")
async def get_batch_totals(tenant: Tenant, here: Here) -> TotalsShape:
    """How many batches you have, by status and lane."""
    return batch_totals.totals(await here.db.autocommit(batch_list.totals, tenant, "batch"), "batch")


@router.get("/{batch_id}", summary="Look at a batch")
async def get_batch(request: Request, batch_id: str, tenant: Tenant, here: Here, wait: Wait = 0) -> BatchShape:
    """State, counts and usage as of now; with `?wait=`, as soon as it has ended."""
    if wait:
        seconds = min(wait, here.settings.max_wait_seconds)
        with here.limiter.held(access_of(request), LimitName.WAITS):
            async with request_turns.of(request.scope).away():
                await here.completion_waiter.wait(tenant, "batch", batch_id, seconds, request.is_disconnected)
    return shapes.batch(await here.db.autocommit(batch_view.view, tenant, "batch", batch_id, here.settings))


@router.get(
    "/{batch_id}/results",
    summary="Read a batch's answers while it runs",
    response_class=StreamingResponse,
    responses=ANSWER_PAGE,
)
async def get_results(
    request: Request,
    batch_id: str,
    tenant: Tenant,
    here: Here,
    after: Cursor = 0,
    limit: LineLimit = 1_000,
    order: Annotated[
        Literal["recorded", "input"],
        Query(
            description="`input`: of an ended batch, in the order of its input; `after` is the number of a line then, "
            "and a page ends early once it has read 16 MiB."
        ),
    ] = "recorded",
    custom_id: Annotated[
        str | None, Query(description="With `order=input`: only the line with this custom_id.", max_length=512)
    ] = None,
) -> Response:
    """What is recorded so far, answers and failed lines, behind the first `after`; HEAD reads none of it.

    Ask again with `after` as `x-last-line` said, until `x-incomplete` is `false`: then you have had each line once, the
    bytes of the output and the error file in another order. The cursor stays good whatever is restarted meanwhile, and
    over the batch's end, for an hour (`PENSTOCK_PIECES_SECONDS`); after that it is a 410, and the files have it all. An
    answer that breaks off counts as none: ask for it again.

    With `order=input` an ended batch is read in the order of its input, for as long as its files are there.
    """
    if order == "input":
        query = LineQuery(after=min(after, MOST_LINE), limit=limit, custom_id=custom_id)
        lines, last, more = await line_page.raw_page(here.db, here.blobs, tenant, batch_id, query)
        headers = {"x-incomplete": str(more).lower(), "x-last-line": str(last), "cache-control": "no-store"}
        joined = b"" if HEAD in request.scope else b"".join(lines)
        return Response(joined, headers=headers, media_type="application/jsonl")
    if custom_id is not None:
        raise BadRequest("'custom_id' goes with order=input.", param="custom_id")
    page = await answer_page.page(here.db, tenant, batch_id, after=after, limit=limit)
    headers = {
        "x-incomplete": "true" if page.incomplete else "false",
        "x-last-line": str(page.last),
        "cache-control": "no-store",
    }
    head = HEAD in request.scope
    pieces = iter(()) if head else await content.begun(answer_page.stream(here.db, here.blobs, page))
    return StreamingResponse(pieces, headers=headers, media_type="application/jsonl")


@router.delete("/{batch_id}", summary="Delete a batch")
async def delete_batch(batch_id: str, tenant: Tenant, here: Acting) -> DeletedBatch:
    """Delete a batch that has ended, with its results; its usage stays counted.

    409 until it has ended, and while a retry of it is there.
    """
    await here.db.run(delete.delete, tenant, "batch", batch_id)
    return DeletedBatch(id=batch_id, object="batch")


@router.post("/{batch_id}/cancel", summary="Cancel a batch")
async def cancel_batch(batch_id: str, tenant: Tenant, here: Acting) -> BatchShape:
    """Stop a batch: what is answered is kept, the rest goes to the error file. 409 if it has ended."""
    return shapes.batch(BatchView(await here.db.run(cancel.cancel, tenant, "batch", batch_id)))


@router.post("/{batch_id}/retry", summary="Retry lines of a batch", openapi_extra=body.documented(retry.CreateRetry))
async def retry_batch(request: Request, batch_id: str, tenant: Tenant, here: Here, repeats: Repeats) -> BatchShape:
    """Ask failed (or empty) lines of an ended batch again, with other parameters if wanted, as a batch of their own.

    The new batch names this one in `parent_batch_id`. When it has ended, `merged_output_file_id` and
    `merged_error_file_id` hold every line of this one once, in its order: with the new answer where one came. It can
    be retried in turn. 409 if this batch has not ended, has no such line, or its files are gone.
    """
    return shapes.batch(await retry.retry(request, here, tenant, "batch", batch_id, repeats))


@router.patch("/{batch_id}", summary="Change a batch", openapi_extra=body.documented(Change))
async def change_batch(request: Request, batch_id: str, tenant: Tenant, here: Acting) -> BatchShape:
    """Give a batch another lane, window or metadata, in force within one slice. 409 if it is closing or has ended."""
    return shapes.batch(await steering.change(request, here, tenant, "batch", batch_id))


@router.post("/{batch_id}/pause", summary="Pause a batch")
async def pause_batch(batch_id: str, tenant: Tenant, here: Acting) -> BatchShape:
    """Start nothing more of a batch in progress; what runs (some hundreds of lines) ends. Its deadline stays."""
    return shapes.batch(await steering.pause(here, tenant, "batch", batch_id))


@router.post("/{batch_id}/resume", summary="Resume a batch")
async def resume_batch(batch_id: str, tenant: Tenant, here: Acting) -> BatchShape:
    """Let a paused batch go on at once."""
    return shapes.batch(await steering.resume(here, tenant, "batch", batch_id))
