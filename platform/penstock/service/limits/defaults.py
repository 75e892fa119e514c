"""Defaults: what holds where the operator has set nothing for a tenant."""

from __future__ import annotations

from typing import Final

from penstock.domain.limits.limit import LimitName, Limits
from penstock.settings.limits import LimitSettings

_SETTINGS: Final = {
    LimitName.REQUESTS_PER_MINUTE: "max_requests_per_minute",
    LimitName.TOKENS_PER_MINUTE: "max_tokens_per_minute",
    LimitName.CALLS: "tenant_calls",
    LimitName.SEQUENCES: "tenant_sequences",
    LimitName.WAITS: "max_waits",
    LimitName.ESTIMATES: "max_estimates",
    LimitName.UPLOAD_BYTES: "max_upload_bytes",
    LimitName.OPEN_BATCHES: "max_open_batches",
    LimitName.QUEUED_LINES: "max_queued_lines",
    LimitName.QUEUED_TOKENS: "max_queued_tokens",
    LimitName.FILES: "max_files",
    LimitName.STORED_BYTES: "max_stored_bytes",
    LimitName.ENDPOINTS: "max_webhook_endpoints",
    LimitName.KEYS: "max_api_keys",
}


def limit(name: LimitName, given: Limits, settings: LimitSettings) -> int | None:
    """What a tenant with these limits may; None: there is no limit, which only rates have not."""
    if name in given:
        return given[name]
    found: int | None = getattr(settings, _SETTINGS[name])
    return found
