"""Reuse: which waiting calls may be answered from the shared cache, and how long their own answers are kept.

the header `x-penstock-cache`   before
the body's field `cache`        before
what the tenant has chosen
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from penstock.domain.api_errors import BadRequest
from penstock.domain.reuse import CacheMode
from penstock.settings.cache import CacheSettings
from penstock.wire.cache import Bounds

MOST_TTL_SECONDS: Final = 30 * 86_400


class _Field(msgspec.Struct, forbid_unknown_fields=True):
    mode: Literal["on", "off", "refresh"] = "on"
    ttl_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What one call does with the cache."""

    mode: CacheMode
    ttl_seconds: int | None = None


def choice(header: str | None, field: Any, tenant_caches: bool) -> Choice:
    """What a call's header and body say, or else its tenant; raise BadRequest for words that mean nothing here."""
    try:
        said = None if field is None else msgspec.convert(field, _Field)
    except msgspec.ValidationError as error:
        raise BadRequest(f"cache: {error}", param="cache") from None
    if said and said.ttl_seconds is not None and not 0 < said.ttl_seconds <= MOST_TTL_SECONDS:
        raise BadRequest(f"cache.ttl_seconds must be 1 to {MOST_TTL_SECONDS}.", param="cache.ttl_seconds")
    mode = CacheMode.ON if tenant_caches else CacheMode.OFF
    if said:
        mode = CacheMode(said.mode)
    if header is not None:
        try:
            mode = CacheMode(header.strip().lower())
        except ValueError:
            raise BadRequest(f"The header x-penstock-cache must be one of {', '.join(CacheMode)}.") from None
    return Choice(mode, said.ttl_seconds if said else None)


def bounds(settings: CacheSettings) -> Bounds:
    """The cache's bounds."""
    return Bounds(
        answer_bytes=settings.cache_answer_bytes,
        all_bytes=settings.cache_bytes,
        ttl_seconds=settings.cache_ttl_seconds,
        timeout_seconds=settings.cache_timeout_seconds,
    )
