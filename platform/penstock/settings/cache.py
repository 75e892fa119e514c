"""The shared cache of answers."""

from __future__ import annotations

from pydantic import Field

from penstock.settings.concern import MIB, Concern


class CacheSettings(Concern):
    """Where answers are kept, how many and how long."""

    cache_url: str = Field("", description="Redis or Valkey that answers are kept in, if not the hints' own.")
    cache_bytes: int = Field(64 * MIB, description="All kept answers together, so that hints always find room.")
    cache_answer_bytes: int = Field(MIB, description="A larger answer is not kept.")
    cache_ttl_seconds: int = Field(86_400, ge=1, description="An answer is kept for so long, unless its request says.")
    cache_timeout_seconds: float = Field(0.1, gt=0, description="Longest wait for the cache; then it is a miss.")
