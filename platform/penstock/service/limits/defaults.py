"""Defaults: what holds where the operator has set nothing for a tenant."""

from __future__ import annotations

from penstock.domain.accounts.limits import LimitName, Limits
from penstock.settings.limits import LimitSettings


def limit(name: LimitName, given: Limits, settings: LimitSettings) -> int | None:
    """What a tenant with these limits may; None: there is no limit, which only rates have not."""
    return given[name] if name in given else _defaults(settings)[name]


def _defaults(settings: LimitSettings) -> dict[LimitName, int | None]:
    return {
        LimitName.REQUESTS_PER_MINUTE: settings.max_requests_per_minute,
        LimitName.TOKENS_PER_MINUTE: settings.max_tokens_per_minute,
        LimitName.CALLS: settings.tenant_calls,
        LimitName.WAITS: settings.max_waits,
        LimitName.ESTIMATES: settings.max_estimates,
        LimitName.UPLOAD_BYTES: settings.max_upload_bytes,
        LimitName.OPEN_BATCHES: settings.max_open_batches,
        LimitName.QUEUED_LINES: settings.max_queued_lines,
        LimitName.QUEUED_TOKENS: settings.max_queued_tokens,
        LimitName.FILES: settings.max_files,
        LimitName.STORED_BYTES: settings.max_stored_bytes,
        LimitName.ENDPOINTS: settings.max_webhook_endpoints,
        LimitName.KEYS: settings.max_api_keys,
    }
