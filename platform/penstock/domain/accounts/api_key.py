"""API keys: as they may be shown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from penstock.domain.accounts.access import Access, Role, Scope


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
    models: frozenset[str] | None
    last_used_at: datetime | None
    """To the minute."""
    replaced_by: str | None
    """The key that a rotation made in its place."""

    @property
    def access(self) -> Access:
        """What it may do."""
        return Access(self.id, self.tenant, self.role, self.scopes, self.models)
