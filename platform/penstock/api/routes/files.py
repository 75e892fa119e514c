"""`/v1/files`: upload, list, look at, read and delete."""

from __future__ import annotations

import functools
import hashlib
from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from penstock.api.auth import Acting, IdempotencyKey, Tenant, access_of
from penstock.api.http import content, multipart
from penstock.api.http.errors import DOCUMENTED
from penstock.api.http.multipart import Form
from penstock.api.platform import Here
from penstock.api.schemas import shapes
from penstock.api.schemas.paging import After
from penstock.api.schemas.shapes import DeletedFile, FileShape, Page
from penstock.domain.api_errors import BadRequest
from penstock.domain.file import File
from penstock.domain.idempotency import Idempotency
from penstock.domain.limits.limit import LimitName
from penstock.service.core.transaction import Transaction
from penstock.service.intake import upload
from penstock.service.intake.upload import Sealed, Upload
from penstock.service.limits import kept
from penstock.settings.limits import LimitSettings

router = APIRouter(prefix="/v1/files", tags=["files"], responses=DOCUMENTED)

LEAST_TTL_SECONDS, MOST_TTL_SECONDS = 3_600, 2_592_000
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "JSONL, one request a line."},
                        "purpose": {"type": "string", "enum": ["batch"]},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": LEAST_TTL_SECONDS,
                            "maximum": MOST_TTL_SECONDS,
                        },
                    },
                }
            }
        },
    }
}


@router.post("", summary="Upload a file", openapi_extra=_FORM)
async def create_file(request: Request, tenant: Tenant, here: Here, idempotency_key: IdempotencyKey) -> FileShape:
    """Stream a file to the blob store. It becomes visible once it is whole; a cut upload leaves nothing behind."""
    limit = here.settings.max_file_bytes
    between = multipart.boundary(request, limit)
    await here.db.run(kept.check, tenant, {LimitName.FILES: 1, LimitName.STORED_BYTES: 0}, here.settings)
    with here.limiter.held(access_of(request), LimitName.UPLOAD_BYTES, 0) as held:
        async with Upload(here.db, here.blobs, tenant, limit) as coming:

            async def take(piece: bytes) -> None:
                held.grow(len(piece))
                await coming.write(piece)

            form = await multipart.receive(request, between, take, here.settings.slow_body_seconds)
            publish = functools.partial(_publish, tenant, form, _ttl(form, here), idempotency_key, here.settings)
            return shapes.file(await coming.publish(publish))


def _publish(
    tenant: str,
    form: Form,
    ttl: timedelta,
    key: str | None,
    settings: LimitSettings,
    tx: Transaction,
    sealed: Sealed,
) -> tuple[File, bool]:
    assert form.filename is not None, "checked with the other fields"
    asked = repr((form.filename, sorted(form.fields.items()))).encode() + sealed.sha256
    once = Idempotency(key, hashlib.sha256(b"file" + asked).digest()) if key else None
    named = {"purpose": "batch", "filename": form.filename}
    return upload.publish_file(tx, sealed, tenant, **named, ttl=ttl, once=once, settings=settings)


def _ttl(form: Form, here: Here) -> timedelta:
    """Check the fields, and say how long the file may live."""
    if form.filename is None:
        raise BadRequest("Missing required parameter: 'file'.", code="missing_required_parameter", param="file")
    fields = dict(form.fields)
    purpose = fields.pop("purpose", None)
    if purpose is None:
        raise BadRequest("Missing required parameter: 'purpose'.", code="missing_required_parameter", param="purpose")
    if purpose != "batch":
        raise BadRequest("purpose must be 'batch'.", param="purpose")
    anchor, seconds = fields.pop("expires_after[anchor]", None), fields.pop("expires_after[seconds]", None)
    if fields:
        name = next(iter(fields))[:100]
        raise BadRequest(f"Unknown parameter: {name!r}.", code="unknown_parameter", param=name)
    if anchor is None and seconds is None:
        return timedelta(seconds=here.settings.file_ttl_seconds)
    if anchor != "created_at":
        raise BadRequest("expires_after[anchor] must be 'created_at'.", param="expires_after[anchor]")
    number = int(seconds) if seconds and seconds.isascii() and seconds.isdecimal() and len(seconds) < 10 else 0
    if not LEAST_TTL_SECONDS <= number <= MOST_TTL_SECONDS:
        message = f"expires_after[seconds] must be a number from {LEAST_TTL_SECONDS} to {MOST_TTL_SECONDS}."
        raise BadRequest(message, param="expires_after[seconds]")
    return timedelta(seconds=number)


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
    found = await here.db.run(upload.page, tenant, purpose=purpose, after=after, limit=limit + 1, order=order)
    # OpenAI's schema wants strings here, even of an empty list.
    return shapes.page([shapes.file(one) for one in found], limit, FileShape, empty="")


@router.get("/{file_id}", summary="Look at a file")
async def get_file(file_id: str, tenant: Tenant, here: Here) -> FileShape:
    """Everything about a file but its bytes."""
    return shapes.file(await here.db.run(upload.get, tenant, file_id))


@router.delete("/{file_id}", summary="Delete a file")
async def delete_file(file_id: str, tenant: Tenant, here: Acting) -> DeletedFile:
    """Delete a file and its bytes. 409 while a batch is still validating it."""
    await upload.delete(here.db, here.blobs, tenant, file_id)
    return DeletedFile(id=file_id)


@router.get("/{file_id}/content", summary="Read a file", response_class=StreamingResponse)
async def get_content(request: Request, file_id: str, tenant: Tenant, here: Here) -> Response:
    """The bytes, streamed; HEAD reads none. Supports `Range` (one range), `If-Range`, `If-None-Match` and gzip."""
    file = await here.db.run(upload.get, tenant, file_id)
    return await content.respond(request, here.blobs, file)
