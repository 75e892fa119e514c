"""`/v1/files`: upload, list, look at, read and delete."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from penstock.api.auth import Acting, Tenant, access_of
from penstock.api.http import content, multipart
from penstock.api.http.errors import DOCUMENTED
from penstock.api.http.multipart import Form
from penstock.api.platform import Here
from penstock.api.repeats import Repeats
from penstock.api.schemas import file_shapes, shapes
from penstock.api.schemas.file_shapes import DeletedFile, FileShape
from penstock.api.schemas.paging import After
from penstock.api.schemas.shapes import Page
from penstock.domain.api_errors import BadRequest
from penstock.domain.file import BATCH, UPLOADED, check_purpose, life
from penstock.domain.limits.limit import LimitName
from penstock.service.core.ids import fresh
from penstock.service.intake import upload
from penstock.service.intake.unpacking import Unpacking
from penstock.service.intake.upload import Upload
from penstock.service.limits import kept

router = APIRouter(prefix="/v1/files", tags=["files"], responses=DOCUMENTED)

LEAST_TTL_SECONDS, MOST_TTL_SECONDS = 3_600, 2_592_000
_FORM = multipart.documented(
    {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "Of a batch: JSONL in UTF-8; as gzip too, which is kept inflated.",
        },
        "purpose": {
            "type": "string",
            "enum": list(UPLOADED),
            "description": "Batches are made of `batch` only; other files are kept, and can be read.",
        },
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {
            "type": "integer",
            "minimum": LEAST_TTL_SECONDS,
            "maximum": MOST_TTL_SECONDS,
        },
    },
    required=["file", "purpose"],
)


@router.post("", summary="Upload a file", openapi_extra=_FORM)
async def create_file(request: Request, tenant: Tenant, here: Here, repeats: Repeats) -> FileShape:
    """Stream a file to the blob store. It becomes visible once it is whole; a cut upload leaves nothing behind."""
    limit = here.settings.max_file_bytes
    between = multipart.boundary(request, limit)
    await here.db.run(kept.check, tenant, {LimitName.FILES: 1, LimitName.STORED_BYTES: 0}, here.settings)
    with here.limiter.held(access_of(request), LimitName.UPLOAD_BYTES, 0) as held:
        async with Upload(here.db, here.blobs, tenant, limit) as coming:
            unpacking = Unpacking(coming.write)

            async def take(piece: bytes, known: Form) -> None:
                held.grow(len(piece))
                # Only a batch's is to be inflated; of a file that comes before its purpose that is not known yet.
                await unpacking.write(piece, known.fields.get("purpose", BATCH) == BATCH)

            form = await multipart.receive(request, between, take, here.settings.slow_body_seconds)
            await unpacking.end()
            purpose, asked_life = _check(form)
            if unpacking.unpacks and purpose != BATCH:
                raise BadRequest("Send 'purpose' before a file that is gzip: it is kept as it is.", param="purpose")
            ttl = life(purpose, asked_life, timedelta(seconds=here.settings.file_ttl_seconds))
            asked = repr((form.filename, sorted(form.fields.items()))).encode() + coming.sha256
            once = await repeats.once(b"file" + asked)
            named = {"id": fresh("file-"), "purpose": purpose, "filename": unpacking.name(form.filename or "")}
            made = await coming.publish(
                lambda tx, sealed: upload.publish_file(
                    tx, sealed, tenant, **named, ttl=ttl, once=once, settings=here.settings
                )
            )
            await repeats.answering(once, made.id)
            return file_shapes.file(made)


def _check(form: Form) -> tuple[str, timedelta | None]:
    """The file's purpose, and how long it is to live if the form says so; raise BadRequest."""
    fields = dict(form.fields)
    purpose = fields.pop("purpose", None)
    if purpose is None:
        raise BadRequest("Missing required parameter: 'purpose'.", code="missing_required_parameter", param="purpose")
    check_purpose(purpose)
    anchor, seconds = fields.pop("expires_after[anchor]", None), fields.pop("expires_after[seconds]", None)
    multipart.check_no_more(fields)
    if anchor is None and seconds is None:
        return purpose, None
    if anchor != "created_at":
        raise BadRequest("expires_after[anchor] must be 'created_at'.", param="expires_after[anchor]")
    number = int(seconds) if seconds and seconds.isascii() and seconds.isdecimal() and len(seconds) < 10 else 0
    if not LEAST_TTL_SECONDS <= number <= MOST_TTL_SECONDS:
        message = f"expires_after[seconds] must be a number from {LEAST_TTL_SECONDS} to {MOST_TTL_SECONDS}."
        raise BadRequest(message, param="expires_after[seconds]")
    return purpose, timedelta(seconds=number)


@router.get("", summary="List files")
async def list_files(
    tenant: Tenant,
    here: Here,
    purpose: Annotated[str | None, Query(description="Only files with this purpose.", max_length=100)] = None,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Annotated[Literal["asc", "desc"], Query(description="By time of creation.")] = "desc",
) -> Page[FileShape]:
    """Your files, newest first unless told otherwise."""
    found = await here.db.autocommit(upload.page, tenant, purpose=purpose, after=after, limit=limit + 1, order=order)
    # OpenAI's schema wants strings here, even of an empty list.
    return shapes.page([file_shapes.file(one) for one in found], limit, FileShape, empty="")


@router.get("/{file_id}", summary="Look at a file")
async def get_file(file_id: str, tenant: Tenant, here: Here) -> FileShape:
    """Everything about a file but its bytes."""
    return file_shapes.file(await here.db.autocommit(upload.get, tenant, file_id))


@router.delete("/{file_id}", summary="Delete a file")
async def delete_file(file_id: str, tenant: Tenant, here: Acting) -> DeletedFile:
    """Delete a file and its bytes. 409 while a batch is still validating it."""
    await upload.delete(here.db, here.blobs, tenant, file_id)
    return DeletedFile(id=file_id)


@router.get("/{file_id}/content", summary="Read a file", response_class=StreamingResponse, responses=content.DOCUMENTED)
async def get_content(request: Request, file_id: str, tenant: Tenant, here: Here) -> Response:
    """The bytes, streamed; HEAD reads none. Supports `Range` (one range), `If-Range`, `If-None-Match` and gzip."""
    file = await here.db.autocommit(upload.get, tenant, file_id)
    return await content.respond(request, here.blobs, file)
