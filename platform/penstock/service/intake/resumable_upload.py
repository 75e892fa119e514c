"""Resumable uploads: parts come in any order, as blobs of their own, and complete makes one file of them, once.

What is there outlives the process that took it: a client goes on with the parts that it has the ids of. Bytes are
copied from the parts to the file piece by piece, since a store that all of ours have in common can't join blobs.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import BadRequest, Conflict, NotFound, TooLarge, Unreadable
from penstock.domain.file import BATCH, File
from penstock.domain.idempotency import Once
from penstock.domain.limits.limit import LimitName
from penstock.domain.resumable_upload import (
    MAX_PARTS,
    NewUpload,
    ResumableUpload,
    UploadPart,
    UploadState,
    in_order,
    parts_hash,
)
from penstock.failpoint import failpoint
from penstock.service.core import unheard_creates
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.service.intake.unpacking import Unpacking
from penstock.service.intake.upload import Sealed, Upload, publish_file
from penstock.service.limits import kept
from penstock.settings.limits import LimitSettings
from penstock.store.batches import files
from penstock.store.batches import resumable_uploads as uploads

_MD5: Final = re.compile("[0-9a-fA-F]{32}")


@dataclass(frozen=True)
class UploadView:
    """An upload, and the file that it became if that is still there."""

    upload: ResumableUpload
    file: File | None = None


@dataclass(frozen=True)
class Completion:
    """What a complete asks for: parts in their order, and the md5 of the whole in hex digits, if its client says it."""

    part_ids: Sequence[str]
    md5: str | None

    def check(self) -> None:
        """Raise BadRequest for what can't be."""
        if self.md5 is not None and not _MD5.fullmatch(self.md5):
            raise BadRequest("md5 is 32 hex digits.", param="md5")
        if len(self.part_ids) > MAX_PARTS:
            raise BadRequest(f"An upload has at most {MAX_PARTS} parts.", param="part_ids")


def create(tx: Transaction, new: NewUpload, settings: LimitSettings) -> UploadView:
    """Begin an upload; one that was begun before, by its idempotency key or as an SDK's retry, is that one.

    Raises TooLarge, and TooMany if its tenant keeps as much as it may, or would with it.
    """
    if new.bytes > settings.max_file_bytes:
        raise TooLarge(f"The file is larger than {settings.max_file_bytes} bytes.", param="bytes")
    if earlier := _made_before(tx, new.tenant, new.once):
        return earlier
    kept.check(tx, new.tenant, {LimitName.FILES: 1, LimitName.STORED_BYTES: new.bytes}, settings)
    if not uploads.insert(tx.conn, new):
        earlier = _made_before(tx, new.tenant, new.once)
        assert earlier is not None, "only an idempotency key can be taken, and its upload is there"
        return earlier
    unheard_creates.note(tx, new.tenant, new.once, new.id)
    return get(tx, new.tenant, new.id)


def _made_before(tx: Transaction, tenant: str, once: Once | None) -> UploadView | None:
    id = unheard_creates.made_before(tx, tenant, once, uploads.by_idempotency_key)
    return get(tx, tenant, id) if id else None


def get(tx: Transaction, tenant: str, id: str) -> UploadView:
    """A tenant's upload; raise NotFound."""
    return _view(tx, _found(uploads.get(tx.conn, tenant, id), id))


def expect_part(tx: Transaction, tenant: str, id: str, settings: LimitSettings) -> ResumableUpload:
    """The upload that a part is coming for, before its bytes are read. Raises NotFound, Conflict, TooMany."""
    upload = _found(uploads.get(tx.conn, tenant, id), id)
    _check_room(tx, tenant, upload)
    kept.check(tx, tenant, {LimitName.STORED_BYTES: 0}, settings)
    return upload


def publish_part(
    tx: Transaction, sealed: Sealed, tenant: str, id: str, settings: LimitSettings
) -> tuple[UploadPart, bool]:
    """Make a blob a part. Raises NotFound, TooMany, or Conflict if the upload has ended meanwhile."""
    kept.check(tx, tenant, {LimitName.STORED_BYTES: sealed.size_bytes}, settings)
    _check_room(tx, tenant, _found(uploads.share(tx.conn, tenant, id), id))
    named = {"id": fresh("part_"), "upload": id, "blob_key": sealed.key}
    return uploads.insert_part(tx.conn, tenant, **named, bytes=sealed.size_bytes), True


def _check_room(tx: Transaction, tenant: str, upload: ResumableUpload) -> None:
    upload.check_pending("given a part")
    if uploads.count_parts(tx.conn, tenant, upload.id) >= MAX_PARTS:
        raise Conflict("full", "given a part", f"An upload has at most {MAX_PARTS} parts.")


def cancel(tx: Transaction, tenant: str, id: str) -> UploadView:
    """Take an upload back, with its parts; again, it is the same. Raises NotFound, or Conflict if it has ended."""
    upload = _found(uploads.lock(tx.conn, tenant, id), id)
    if upload.state is not UploadState.CANCELLED:
        upload.check_pending("cancelled")
        uploads.end(tx.conn, tenant, id, UploadState.CANCELLED)
    return get(tx, tenant, id)


def begin_completion(tx: Transaction, tenant: str, id: str, asked: Completion) -> tuple[UploadView, list[UploadPart]]:
    """The upload and the parts to put together: none if it was completed with these before.

    Raises NotFound, BadRequest, or Conflict if it has ended otherwise.
    """
    asked.check()
    upload = _found(uploads.get(tx.conn, tenant, id), id)
    if _is_completed(upload, asked):
        return _view(tx, upload), []
    upload.check_pending("completed")
    return UploadView(upload), in_order(upload, uploads.parts(tx.conn, tenant, id), asked.part_ids)


async def put_together(
    db: AsyncDatabase,
    blobs: Blobs,
    upload: ResumableUpload,
    parts: Sequence[UploadPart],
    asked: Completion,
    settings: LimitSettings,
) -> UploadView:
    """Copy the parts into one blob and publish it as a file, unless another complete with the same parts was first.

    Raises BadRequest if the md5 is another, Conflict if the upload ended meanwhile, TooMany.
    """
    whole = hashlib.md5(usedforsecurity=False)
    async with Upload(db, blobs, upload.tenant, settings.max_file_bytes) as coming:
        unpacking = Unpacking(coming.write)
        try:
            for part in parts:
                async for piece in blobs.stream(part.blob_key, 0, part.bytes):
                    whole.update(piece)
                    await unpacking.write(piece, upload.purpose == BATCH)
            await unpacking.end()
        except Unreadable:  # a cancel, another complete or the sweep took them
            done, _ = await db.run(begin_completion, upload.tenant, upload.id, asked)
            if done.upload.state is UploadState.PENDING:
                raise
            return done
        if asked.md5 is not None and whole.hexdigest() != asked.md5.lower():
            raise BadRequest(f"The parts have the md5 {whole.hexdigest()}.", param="md5", code="md5_mismatch")
        failpoint("upload.joined")
        return await coming.publish(
            functools.partial(
                _publish,
                tenant=upload.tenant,
                id=upload.id,
                filename=unpacking.name(upload.filename),
                asked=asked,
                settings=settings,
            )
        )


def _publish(
    tx: Transaction,
    sealed: Sealed,
    *,
    tenant: str,
    id: str,
    filename: str,
    asked: Completion,
    settings: LimitSettings,
) -> tuple[UploadView, bool]:
    kept.check(tx, tenant, {}, settings)  # its lock comes before the upload's, as with parts
    upload = _found(uploads.lock(tx.conn, tenant, id, late=True), id)
    if _is_completed(upload, asked):
        return _view(tx, upload), False
    upload.check_pending("completed")
    file = fresh("file-")
    # First of all its own place and its parts' bytes become free, for the file.
    state, hashed = UploadState.COMPLETED, parts_hash(asked.part_ids)
    uploads.end(tx.conn, tenant, id, state, file=file, parts_hash=hashed)
    named = {"id": file, "purpose": upload.purpose, "filename": filename}
    publish_file(tx, sealed, tenant, **named, ttl=upload.ttl, once=None, settings=settings)
    return get(tx, tenant, id), True


def _is_completed(upload: ResumableUpload, asked: Completion) -> bool:
    return upload.parts_hash is not None and upload.parts_hash == parts_hash(asked.part_ids)


def _found(upload: ResumableUpload | None, id: str) -> ResumableUpload:
    if upload is None:
        raise NotFound("upload", id, param="upload_id")
    return upload


def _view(tx: Transaction, upload: ResumableUpload) -> UploadView:
    return UploadView(upload, files.get(tx.conn, upload.tenant, upload.file) if upload.file else None)
