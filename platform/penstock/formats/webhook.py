"""What goes over the wire to a receiver: OpenAI's event object, signed as Standard Webhooks 1.0 says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from standardwebhooks.webhooks import Webhook

from penstock.domain.webhook import Due


def body(due: Due) -> bytes:
    """The event; the same bytes at every attempt."""
    return event(due.event, due.type, due.object, due.happened_at)


def event(id: str, type: str, about: str, happened_at: datetime) -> bytes:
    """An event of this type about a batch, a job or a tenant, as it goes over the wire."""
    return msgspec.json.encode(
        {
            "id": id,
            "object": "event",
            "created_at": int(happened_at.timestamp()),
            "type": type,
            "data": {"id": about},
            "timestamp": happened_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }
    )


def headers(due: Due, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    """The headers of this attempt: its time by the database's clock, and a signature for each of the secrets."""
    text, at = body.decode(), due.claimed_at.astimezone(UTC)
    return {
        "content-type": "application/json",
        "user-agent": "penstock-webhooks",
        "webhook-id": due.event,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(due.event, at, text) for secret in secrets),
    }
