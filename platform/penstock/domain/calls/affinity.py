"""Affinity: which calls should meet on one worker, because what one of them warmed serves the next."""

from __future__ import annotations

import hashlib
from uuid import UUID


def key(tenant: str, model: str, session: str | None, user: str | None, prefix: bytes) -> bytes | None:
    """What equal callers have in common: a session, else a user, else a prompt's beginning; None if nothing is.

    It is the tenant's and the model's own: nobody can steer calls to another tenant's worker, or away from it.
    """
    if session:
        kind, value = b"session", session.encode(errors="replace")
    elif user:
        kind, value = b"user", user.encode(errors="replace")
    elif prefix:
        kind, value = b"prefix", prefix
    else:
        return None
    hashed = hashlib.blake2b(digest_size=16)
    for part in (tenant.encode(), model.encode(errors="replace"), kind, value):
        hashed.update(len(part).to_bytes(4))
        hashed.update(part)
    return hashed.digest()


def weight(key: bytes, worker: UUID) -> bytes:
    """How much a key is drawn to a worker (rendezvous hashing, Thaler and Ravishankar 1998).

    Each pair has its own number, so that a worker that leaves moves its own keys only.
    """
    return hashlib.blake2b(worker.bytes, key=key, digest_size=8).digest()
