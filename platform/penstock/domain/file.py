"""Files: bytes that were uploaded or produced."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


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
