"""Context: what the console's pages work with, chosen once at the start by whoever puts it beside the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from penstock.console.api_client import ApiClient
from penstock.console.live_topics import LiveTopics
from penstock.console.session_watch import SessionWatch
from penstock.service.calls.api_key_cache import ApiKeyCache
from penstock.service.calls.key_uses import KeyUses
from penstock.service.core.transaction import AsyncDatabase
from penstock.service.limits.limiter import Limiter
from penstock.settings import Settings


@dataclass(frozen=True)
class ConsoleContext:
    """Sessions are looked up in `db`; everything else is asked of the API."""

    db: AsyncDatabase
    settings: Settings
    key_cache: ApiKeyCache
    """It answers wrong keys late where many come."""
    limiter: Limiter
    key_uses: KeyUses
    api: ApiClient
    topics: LiveTopics
    session_watch: SessionWatch


async def _context(request: Request) -> ConsoleContext:
    context: ConsoleContext = request.app.state.context()
    return context


Context = Annotated[ConsoleContext, Depends(_context)]
