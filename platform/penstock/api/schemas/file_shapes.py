"""Shapes of files and of uploads: what this API says of them, in the shapes of OpenAI's."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from penstock.api.schemas.shapes import time, unix
from penstock.domain.file import File
from penstock.domain.resumable_upload import UploadPart
from penstock.service.intake.resumable_upload import UploadView


class FileShape(BaseModel):
    """A file: bytes that were uploaded, or that a batch produced."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int = Field(description="Unix seconds.")
    expires_at: int | None = Field(description="Unix seconds; null if it never expires.")
    filename: str
    purpose: str = Field(description="What it was uploaded for (`batch`, `vision`, …), or `batch_output` (produced).")
    status: Literal["processed"] = "processed"
    status_details: str | None = None


class UploadShape(BaseModel):
    """A resumable upload: parts that are to become one file."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int = Field(description="Of the file, as the create said.")
    created_at: int = Field(description="Unix seconds.")
    expires_at: int = Field(description="Unix seconds; what is not completed by then has `expired`.")
    filename: str
    purpose: str
    status: Literal["pending", "completed", "cancelled", "expired"]
    file: FileShape | None = Field(description="What it became; null before, and once that is deleted.")


class UploadPartShape(BaseModel):
    """A part of an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int = Field(description="Unix seconds.")
    upload_id: str


class DeletedFile(BaseModel):
    """Confirms a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


def file(one: File) -> FileShape:
    """A file's shape."""
    return FileShape(
        id=one.id,
        bytes=one.bytes,
        created_at=unix(one.created_at),
        expires_at=time(one.expires_at),
        filename=one.filename,
        purpose=one.purpose,
    )


def upload(view: UploadView) -> UploadShape:
    """An upload's shape."""
    one = view.upload
    return UploadShape(
        id=one.id,
        bytes=one.bytes,
        created_at=unix(one.created_at),
        expires_at=unix(one.expires_at),
        filename=one.filename,
        purpose=one.purpose,
        status=one.state.value,
        file=file(view.file) if view.file else None,
    )


def upload_part(one: UploadPart) -> UploadPartShape:
    """A part's shape."""
    return UploadPartShape(id=one.id, created_at=unix(one.created_at), upload_id=one.upload)
