"""Idempotency: a create that comes twice makes one object, if its caller says so by a key, or its SDK by a mark."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.domain.api_errors import Conflict


@dataclass(frozen=True)
class Idempotency:
    """A caller's idempotency key, and a hash of all that the request asks for."""

    key: str
    fingerprint: bytes


@dataclass(frozen=True)
class SdkCreate:
    """A create without such a key by an SDK that repeats what it got no answer to, and marks it as its retry."""

    api_key: str
    """The id of the API key that asks."""
    fingerprint: bytes
    is_retry: bool


Once = Idempotency | SdkCreate
"""How a create that comes again is known."""


def key_of(once: Once | None) -> str | None:
    """The idempotency key, if the caller sent one."""
    return once.key if isinstance(once, Idempotency) else None


def fingerprint_of(once: Once | None) -> bytes | None:
    """The hash that is kept with the key, if the caller sent one."""
    return once.fingerprint if isinstance(once, Idempotency) else None


def remembered(once: Idempotency, earlier: tuple[str, bytes] | None) -> str | None:
    """The id that this key made before, if any; raise Conflict if that was another request."""
    if earlier is None:
        return None
    id, fingerprint = earlier
    if fingerprint != once.fingerprint:
        message = "This Idempotency-Key was used before, with a different request."
        raise Conflict("used", "used again", message, code="idempotency_key_reused")
    return id
