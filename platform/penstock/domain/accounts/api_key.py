"""API keys: as they may be shown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from penstock.domain.accounts.access import Role, Scope


@dataclass(frozen=True)
class ApiKey:
    """An API key as it may be shown: its last four characters, never itself."""

    id: str
    tenant: str
    name: str
    tail: str
    created_at: datetime
    revoked_at: datetime | None
    expires_at: datetime | None
    role: Role
    scopes: frozenset[Scope]
