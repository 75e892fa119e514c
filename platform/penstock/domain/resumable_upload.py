"""Resumable uploads: a file that comes in parts, in any order, within an hour (OpenAI's Uploads API).

pending → completed | cancelled | expired, and none of these changes any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from penstock.domain.api_errors import BadRequest, Conflict
from penstock.domain.idempotency import Once

LIFE: Final = timedelta(hours=1)
"""OpenAI's: what is not completed by then has expired."""
MAX_PART_BYTES: Final = 64 * 1024 * 1024
"""OpenAI's, and what its SDKs send."""
MAX_PARTS: Final = 10_000
"""Of one upload; as S3 has it."""


class UploadState(StrEnum):
    """Whether parts may still come, and what became of them."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True)
class NewUpload:
    """What is known of an upload before its row is there."""

    id: str
    tenant: str
    purpose: str
    filename: str
    bytes: int
    mime_type: str
    ttl: timedelta | None
    once: Once | None = None


@dataclass(frozen=True)
class ResumableUpload:
    """What a file will be once its parts are put together. Times are UTC."""

    id: str
    tenant: str
    purpose: str
    filename: str
    parts_hash: bytes | None
    """Of the parts that it was completed with."""
    bytes: int
    ttl: timedelta | None
    """How long the file may live; None: until it is deleted."""
    state: UploadState
    """By the database's clock: expired as soon as it is too late, whether it was swept or not."""
    created_at: datetime
    expires_at: datetime
    file: str | None
    """The file that it became."""

    def check_pending(self, wanted: str) -> None:
        """Raise Conflict unless parts may still come."""
        if self.state is not UploadState.PENDING:
            raise Conflict(self.state, wanted, f"The upload is {self.state}: begin another.")


@dataclass(frozen=True)
class UploadPart:
    """Bytes that are whole in the blob store, and will be a part of a file."""

    id: str
    upload: str
    bytes: int
    blob_key: str
    created_at: datetime


def parts_hash(part_ids: Sequence[str]) -> bytes:
    """A hash of parts in their order: a complete that is repeated has the same."""
    return hashlib.sha256("\n".join(part_ids).encode()).digest()


def in_order(upload: ResumableUpload, there: Mapping[str, UploadPart], part_ids: Sequence[str]) -> list[UploadPart]:
    """The parts of these ids in this order; raise BadRequest unless they are the upload's and have all its bytes."""
    if len(set(part_ids)) < len(part_ids):
        raise BadRequest("'part_ids' names a part twice.", param="part_ids")
    for id in part_ids:
        if id not in there:
            raise BadRequest(f"The upload has no such part: {id[:64]!r}.", param="part_ids")
    size = sum(there[id].bytes for id in part_ids)
    if size != upload.bytes:
        message = f"These parts have {size} bytes, and the upload was to have {upload.bytes}."
        raise BadRequest(message, param="part_ids", code="bytes_mismatch")
    return [there[id] for id in part_ids]
