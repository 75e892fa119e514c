"""`/v1/uploads`: OpenAI's Uploads API, where a file comes in parts and goes on after a break."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Request
from pydantic import Field, StringConstraints

from penstock.api.auth import Tenant, access_of
from penstock.api.http import body, multipart
from penstock.api.http.body import Asked, Text
from penstock.api.http.errors import DOCUMENTED
from penstock.api.http.multipart import Form
from penstock.api.platform import Here
from penstock.api.repeats import Repeats
from penstock.api.schemas import file_shapes
from penstock.api.schemas.file_shapes import UploadPartShape, UploadShape
from penstock.api.schemas.terms import ExpiresAfter
from penstock.domain.file import UPLOADED, check_purpose, life
from penstock.domain.limits.limit import LimitName
from penstock.domain.resumable_upload import MAX_PART_BYTES, MAX_PARTS, NewUpload
from penstock.service.core.ids import fresh
from penstock.service.intake import resumable_upload
from penstock.service.intake.resumable_upload import Completion
from penstock.service.intake.upload import Upload

router = APIRouter(prefix="/v1/uploads", tags=["files"], responses=DOCUMENTED)

_MAX_CREATE_BYTES: Final = 16 * 1024
_MAX_COMPLETE_BYTES: Final = MAX_PARTS * 64
_PART: Final = {"type": "string", "format": "binary", "description": f"At most {MAX_PART_BYTES} bytes (64 MiB)."}


class CreateUpload(Asked):
    """What the file will be."""

    filename: Annotated[Text, StringConstraints(min_length=1, max_length=multipart.MAX_FILENAME_CHARACTERS)]
    purpose: Text = Field(description=f"One of {', '.join(UPLOADED)}; batches are made of `batch` only.")
    bytes: int = Field(ge=0, lt=2**53, description="Of the whole file; its parts must have as many.")
    mime_type: Annotated[Text, StringConstraints(max_length=255)] = Field(description="Any: nothing depends on it.")
    expires_after: ExpiresAfter | None = Field(None, description="When the file goes.")


class CompleteUpload(Asked):
    """Which parts make the file."""

    part_ids: list[Text] = Field(description="In their order in the file; parts that are not named are dropped.")
    md5: Text | None = Field(None, description="Of the whole file, as hex digits: another file is a 400.")


BODIES: Final = (CreateUpload, CompleteUpload)


@router.post("", summary="Begin an upload", openapi_extra=body.documented(CreateUpload))
async def create_upload(request: Request, tenant: Tenant, here: Here, repeats: Repeats) -> UploadShape:
    """Say what file will come in parts. Within an hour they must be there and completed, or the upload expires."""
    raw = await body.read(request, _MAX_CREATE_BYTES)
    asked = body.check(CreateUpload, body.decode(raw))
    check_purpose(asked.purpose)
    once = await repeats.once(b"upload" + raw)
    asked_life = timedelta(seconds=asked.expires_after.seconds) if asked.expires_after else None
    new = NewUpload(
        id=fresh("upload_"),
        tenant=tenant,
        purpose=asked.purpose,
        filename=multipart.last_part(asked.filename),
        bytes=asked.bytes,
        mime_type=asked.mime_type,
        ttl=life(asked.purpose, asked_life, timedelta(seconds=here.settings.file_ttl_seconds)),
        once=once,
    )
    made = await here.db.run(resumable_upload.create, new, here.settings)
    await repeats.answering(once, made.upload.id)
    return file_shapes.upload(made)


@router.get("/{upload_id}", summary="Look at an upload")
async def get_upload(upload_id: str, tenant: Tenant, here: Here) -> UploadShape:
    """Whether parts may still come, and the file that it became. Ended ones are kept for a day. OpenAI has no such."""
    return file_shapes.upload(await here.db.run(resumable_upload.get, tenant, upload_id))


@router.post("/{upload_id}/parts", summary="Add a part", openapi_extra=multipart.documented({"data": _PART}, ["data"]))
async def create_part(request: Request, upload_id: str, tenant: Tenant, here: Here) -> UploadPartShape:
    """Stream a part to the blob store; parts may come in any order, and several at once.

    A part whose answer was lost may be sent again: what is not named in the end is dropped. 409 if the upload has
    ended.
    """
    upload = await here.db.run(resumable_upload.expect_part, tenant, upload_id, here.settings)
    most = min(MAX_PART_BYTES, upload.bytes)
    between = multipart.boundary(request, most)
    with here.limiter.held(access_of(request), LimitName.UPLOAD_BYTES, 0) as held:
        async with Upload(here.db, here.blobs, tenant, most, "part") as coming:

            async def take(piece: bytes, _: Form) -> None:
                held.grow(len(piece))
                await coming.write(piece)

            form = await multipart.receive(request, between, take, here.settings.slow_body_seconds, "data")
            multipart.check_no_more(form.fields)
            publish = functools.partial(
                resumable_upload.publish_part, tenant=tenant, id=upload_id, settings=here.settings
            )
            return file_shapes.upload_part(await coming.publish(publish))


@router.post("/{upload_id}/complete", summary="Complete an upload", openapi_extra=body.documented(CompleteUpload))
async def complete_upload(request: Request, upload_id: str, tenant: Tenant, here: Here) -> UploadShape:
    """Make one file of the parts, in the order of `part_ids`; with the same parts again it is the same answer.

    400 if they have not all the bytes, or another md5: the upload then stays as it is. 409 if it has ended otherwise.
    """
    asked = body.check(CompleteUpload, body.decode(await body.read(request, _MAX_COMPLETE_BYTES)))
    wanted = Completion(asked.part_ids, asked.md5)
    found, parts = await here.db.run(resumable_upload.begin_completion, tenant, upload_id, wanted)
    if found.upload.file is None:
        with here.limiter.held(access_of(request), LimitName.UPLOAD_BYTES, found.upload.bytes):
            found = await resumable_upload.put_together(here.db, here.blobs, found.upload, parts, wanted, here.settings)
    return file_shapes.upload(found)


@router.post("/{upload_id}/cancel", summary="Cancel an upload")
async def cancel_upload(upload_id: str, tenant: Tenant, here: Here) -> UploadShape:
    """Take it back, with its parts; again, it is the same answer. 409 if it has ended otherwise."""
    return file_shapes.upload(await here.db.run(resumable_upload.cancel, tenant, upload_id))
