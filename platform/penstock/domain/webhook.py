"""Webhooks: which events there are, who wants to hear of them, and what follows from a receiver's answer.

The rules are those of Standard Webhooks 1.0 (standardwebhooks.com), with OpenAI's names.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from penstock.domain.api_errors import BadRequest

BATCH_EVENT_TYPES: Final = ("batch.completed", "batch.failed", "batch.expired", "batch.cancelled")
"""What may happen to a batch, with OpenAI's names; a job's events have them too."""
EVENT_TYPES: Final = (*BATCH_EVENT_TYPES, "budget.warning", "budget.spent")
"""`data.id` of a budget's is the tenant."""

SECRET_PREFIX: Final = "whsec_"
SECRET_BYTES: Final = range(24, 65)
"""What Standard Webhooks asks of a secret's length."""
MADE_SECRET_BYTES: Final = 32

LONGEST_RETRY_AFTER_SECONDS: Final = 86_400.0
"""A receiver may ask for a day, not for ever."""
JITTER: Final = 0.1
"""A wait is up to so much longer than the schedule says, so that retries after an outage do not come in step."""

GONE: Final = 410
OBEYED: Final = (429, 503)
"""Statuses whose retry-after is obeyed."""


class DeliveryState(StrEnum):
    """Where a delivery stands; a failed one was tried as often as the schedule says, or its endpoint is no more."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True)
class SealedSecret:
    """A secret as the database has it: encrypted, and the last four characters, by which people know it."""

    text: str
    hint: str


@dataclass(frozen=True)
class Endpoint:
    """Where events of a tenant, or of one batch, go."""

    id: str
    tenant: str
    batch: str | None
    name: str
    url: str
    event_types: tuple[str, ...]
    sealed: SealedSecret
    disabled_as: str | None
    """`by_hand`, or `gone`: it answered 410. None: it is enabled."""
    created_at: datetime
    updated_at: datetime
    secret: str = ""
    """In clear, where it was made just now; empty in all that was read from the database."""


@dataclass(frozen=True)
class Attempt:
    """How one attempt went: the receiver's status and the first bytes of its answer, or why there is none."""

    number: int
    at: datetime
    status: int | None
    milliseconds: int
    answer: bytes | None
    error: str | None


@dataclass(frozen=True)
class Delivery:
    """One event for one endpoint, with its attempts (the last one only, in lists)."""

    id: str
    endpoint: str
    event: str
    type: str
    object: str
    happened_at: datetime
    """When the event happened; `created_at` is when it was owed."""
    test: bool
    state: DeliveryState
    attempts: int
    next_at: datetime | None
    created_at: datetime
    ended_at: datetime | None
    log: tuple[Attempt, ...]


@dataclass(frozen=True)
class Due:
    """A delivery that was claimed for one attempt, with all that is needed to send it."""

    id: str
    number: int
    """Of this attempt, from 1: who holds a smaller number holds nothing any more."""
    tries: int
    """Attempts since the schedule began, this one included."""
    tenant: str
    endpoint: str
    receiver: str
    enabled: bool
    url: str
    sealed: tuple[str, ...]
    """Its secrets, encrypted. The present one first; for a while after a rotation the one before it too."""
    event: str
    type: str
    object: str
    happened_at: datetime
    test: bool
    claimed_at: datetime
    """By the database's clock: the time of the attempt, which receivers compare with their own."""


@dataclass(frozen=True)
class AttemptVerdict:
    """What follows from an attempt."""

    state: DeliveryState
    wait_seconds: float = 0.0
    """Until the next attempt, of a pending one."""
    gone: bool = False
    """Whether the receiver wants to hear nothing any more."""


def judge(
    status: int | None, retry_after_seconds: float | None, tries: int, waits_seconds: Sequence[float], chance: float
) -> AttemptVerdict:
    """What follows from the attempt number `tries` of a schedule: the waits before each attempt, the first included.

    2xx is delivered, 410 the end; all else, redirects included, is tried again while the schedule has attempts left.
    """
    if status is not None and 200 <= status < 300:
        return AttemptVerdict(DeliveryState.DELIVERED)
    if status == GONE:
        return AttemptVerdict(DeliveryState.FAILED, gone=True)
    if tries >= len(waits_seconds):
        return AttemptVerdict(DeliveryState.FAILED)
    wait = waits_seconds[tries] * (1 + JITTER * chance)
    if status in OBEYED and retry_after_seconds is not None:
        wait = max(wait, min(retry_after_seconds, LONGEST_RETRY_AFTER_SECONDS))
    return AttemptVerdict(DeliveryState.PENDING, wait)


def retry_after(header: str | None, now: datetime) -> float | None:
    """Seconds that a `retry-after` asks for, as a number or an HTTP date (RFC 9110, 10.2.3); None if it is odd."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header.strip()[:9])
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(timedelta(), date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()


def receiver_of(url: str) -> str:
    """Who answers at this url, as far as one slow receiver is told from another: host and port."""
    parts = urlsplit(url)
    return f"{(parts.hostname or '').lower()}:{parts.port or (80 if parts.scheme == 'http' else 443)}"


def secret_of(entropy: bytes) -> str:
    """A secret as Standard Webhooks writes it."""
    return SECRET_PREFIX + base64.b64encode(entropy).decode()


def check_secret(secret: str, param: str) -> str:
    """The caller's own secret, or BadRequest: `whsec_` and base64 of 24 to 64 bytes."""
    try:
        entropy = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        entropy = b""
    if not secret.startswith(SECRET_PREFIX) or len(entropy) not in SECRET_BYTES:
        raise BadRequest(f"A secret is {SECRET_PREFIX!r} and base64 of 24 to 64 bytes.", param=param)
    return secret


@dataclass(frozen=True)
class WebhookRequest:
    """A webhook for one batch; `made` says that its secret is ours, and was never told to anybody yet."""

    url: str
    event_types: tuple[str, ...]
    secret: str
    sealed: SealedSecret
    made: bool


@dataclass(frozen=True)
class AttemptOutcome:
    """How one claimed attempt went, and what follows from it."""

    id: str
    number: int
    state: DeliveryState
    wait_seconds: float
    at: datetime
    status: int | None
    milliseconds: int
    answer: bytes | None
    error: str | None


@dataclass(frozen=True)
class RecordedAttempt:
    """An attempt that was recorded; `age` since the event, of one that ended its delivery."""

    id: str
    state: DeliveryState
    milliseconds: int
    age: timedelta | None


@dataclass(frozen=True)
class WebhookBacklog:
    """What is owed at this moment."""

    pending: int
    due: int
    late_seconds: float
