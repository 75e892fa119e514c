"""Terms: what batches and jobs have in common when they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from penstock.domain.reuse import CacheMode
from penstock.domain.webhook import WebhookRequest
from penstock.domain.work.lane import Lane

DEFAULT_WINDOW: Final = "24h"


@dataclass(frozen=True)
class Terms:
    """What is asked, how urgently, until when, and the caller's notes."""

    endpoint: str
    lane: Lane = Lane.STANDARD
    completion_window: str = DEFAULT_WINDOW
    metadata: dict[str, str] = field(default_factory=dict)
    output_expires_seconds: int | None = None
    dedup: bool = True
    plan: bool = True
    """False: lines are asked in file order."""
    cache: CacheMode | None = None
    """None: what the tenant has chosen."""
    cache_ttl_seconds: int | None = None
    webhook: WebhookRequest | None = None
    allowed_models: frozenset[str] | None = None
    """What its maker's key may ask; None: every model."""
