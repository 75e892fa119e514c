"""Idempotency: a create that comes twice under one key makes one object."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.domain.api_errors import Conflict


@dataclass(frozen=True)
class Idempotency:
    """A caller's idempotency key, and a hash of all that the request asks for."""

    key: str
    fingerprint: bytes


def remembered(once: Idempotency, earlier: tuple[str, bytes] | None) -> str | None:
    """The id that this key made before, if any; raise Conflict if that was another request."""
    if earlier is None:
        return None
    id, fingerprint = earlier
    if fingerprint != once.fingerprint:
        message = "This Idempotency-Key was used before, with a different request."
        raise Conflict("used", "used again", message, code="idempotency_key_reused")
    return id
