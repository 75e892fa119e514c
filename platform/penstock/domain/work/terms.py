"""Terms: what batches and jobs have in common when they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from penstock.domain.reuse import CacheMode
from penstock.domain.webhook import WebhookRequest
from penstock.domain.work.lane import Lane

DEFAULT_WINDOW: Final = "24h"


class OnInvalid(StrEnum):
    """What becomes of a batch of which validation refuses lines."""

    FAIL = "fail"
    """It fails, with all of them named, before any line is asked."""
    SKIP = "skip"
    """It goes on without them; each stands in the error file."""


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
    on_invalid: OnInvalid = OnInvalid.FAIL
    trace: bool = False
    """What each member of an ensemble said goes to a file of its own."""
    default_model: str | None = None
    """What lines ask that name no model."""
    cache_ttl_seconds: int | None = None
    webhook: WebhookRequest | None = None
    allowed_models: frozenset[str] | None = None
    """What its maker's key may ask; None: every model."""
    api_key: str | None = None
    """The id of its maker's key, for whom it counts; None: nobody's."""
