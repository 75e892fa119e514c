"""The answer cache: a worker's place at the shared cache, for answers of engines that would answer alike."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.domain.adapter import revision_with
from penstock.domain.reuse import CacheMode
from penstock.domain.work.slice import Claim
from penstock.wire.cache import Cache, Entry, key_of


class AnswerCache:
    """Finds and keeps answers for slices, as each slice's batch wishes."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self.revision = ""
        """Of the engine that runs; empty if it is not known, and then nothing is found or kept."""

    def find(self, claim: Claim, fingerprints: Sequence[bytes]) -> dict[bytes, bytes]:
        """The answers that are there, by the fingerprint of their request."""
        revision = revision_with(self.revision, claim.adapter)
        if claim.reuse.cache is not CacheMode.ON or not revision:
            return {}
        found = self._cache.get([_key(claim, revision, one) for one in fingerprints])
        return {one: body for one, body in zip(fingerprints, found, strict=True) if body is not None}

    def keep(self, claim: Claim, fingerprint: bytes, body: bytes) -> None:
        """Store an answer, soon."""
        revision = revision_with(self.revision, claim.adapter)
        if claim.reuse.cache is not CacheMode.OFF and revision:
            self._cache.keep(Entry(_key(claim, revision, fingerprint), body, claim.reuse.ttl_seconds))


def _key(claim: Claim, revision: str, fingerprint: bytes) -> bytes:
    return key_of(claim.tenant, claim.model, revision, fingerprint)
