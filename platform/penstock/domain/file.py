"""Files: bytes that were uploaded or produced."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from penstock.domain.api_errors import BadRequest

BATCH: Final = "batch"
"""The only purpose whose files can be inputs of batches."""
UPLOADED: Final = (BATCH, "assistants", "fine-tune", "vision", "user_data", "evals")
"""OpenAI's purposes for uploads; nothing but a batch is made of them here. `batch_output` is ours to make."""


@dataclass(frozen=True)
class File:
    """Bytes that were uploaded or produced. Times are UTC."""

    id: str
    tenant: str
    purpose: str
    filename: str
    bytes: int
    blob_key: str
    created_at: datetime
    expires_at: datetime | None
    index_key: str | None = None
    """The blob that says where its lines are, if one was written."""


def check_purpose(purpose: str) -> None:
    """Raise BadRequest unless a file with this purpose can be uploaded."""
    if purpose not in UPLOADED:
        raise BadRequest(f"purpose must be one of {', '.join(UPLOADED)}.", param="purpose")


def life(purpose: str, asked: timedelta | None, of_batch_inputs: timedelta) -> timedelta | None:
    """How long an upload lives as asked; else inputs of batches have an end, and others none, as with OpenAI."""
    return asked or (of_batch_inputs if purpose == BATCH else None)
