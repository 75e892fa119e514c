"""Audit: who did what to what, for whoever has to answer for it. No content: no secret, body, file or answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: an API key, by its id, or one of those below."""

    id: str
    request: str | None = None
    """The id of the request that says so."""


CLI: Final = Actor("cli")
"""Whoever has the database and uses the command line."""
PLATFORM: Final = Actor("platform")
"""Nobody asks for it: the platform does it by itself."""

ERASED: Final = Actor("erased")
"""An API key whose tenant is gone."""


@dataclass(frozen=True)
class AuditRow:
    """One act."""

    id: int
    at: datetime
    tenant: str
    """Whose things it was about."""
    actor: Actor
    action: str
    """What it was about, and what was done: `api_key.created`, `batch.cancelled`."""
    target: str
    details: dict[str, Any]
