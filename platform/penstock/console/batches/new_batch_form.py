"""The form of a new batch: what was typed, as the API takes it, and which field a refusal of the API is about."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.console.form_values import FormRefused, decimal_or_none
from penstock.console.forms import SentForm
from penstock.domain.api_errors import BadRequest
from penstock.domain.inference_endpoints import BATCHED, named
from penstock.domain.webhook import BATCH_EVENT_TYPES, MADE_SECRET_BYTES, SECRET_PREFIX
from penstock.domain.work.lane import Lane
from penstock.domain.work.terms import DEFAULT_WINDOW, OnInvalid

MOST_PAIRS: Final = 16
_BLANK_PAIRS: Final = 3
_DAY: Final = 86_400
_LEAST_OUTPUT_SECONDS: Final = 3_600
_MOST_OUTPUT_DAYS: Final = 30

FIELDS: Final = {
    "endpoint": "endpoint", "model": "model", "completion_window": "window", "on_invalid": "on_invalid",
    "output_expires_after": "output_days", "metadata": "metadata",
    "cache.ttl_seconds": "cache_seconds", "webhook": "webhook_url",
    "webhook.url": "webhook_url", "webhook.secret": "webhook_secret", "webhook.events": "webhook_events",
}  # fmt: skip
"""The field of this form that each parameter of the API stands in."""


def _token() -> str:
    return secrets.token_urlsafe(18)


def _secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(MADE_SECRET_BYTES)).decode()


@dataclass(frozen=True)
class NewBatchForm:
    """What the form shows, as it was typed; what is new has the API's defaults."""

    token: str = field(default_factory=_token)
    """It makes one batch however often the form is sent: its Idempotency-Key."""
    endpoint: str = BATCHED[0]
    model: str = ""
    lane: str = Lane.STANDARD.value
    window: str = DEFAULT_WINDOW
    on_invalid: str = OnInvalid.FAIL.value
    pairs: tuple[tuple[str, str], ...] = ()
    webhook_url: str = ""
    webhook_secret: str = field(default_factory=_secret)
    """It is shown before the batch is made, so that nobody has to be told it afterwards."""
    webhook_events: tuple[str, ...] = BATCH_EVENT_TYPES
    dedup: bool = True
    plan: bool = True
    trace: bool = False
    cache: str = ""
    """Empty: as the tenant chose."""
    cache_seconds: str = ""
    output_days: str = ""
    """How long its output files are there; empty: as long as it is."""

    @property
    def shown_pairs(self) -> list[tuple[str, str]]:
        """Those that are there, and some to fill."""
        return [*self.pairs, *[("", "")] * _BLANK_PAIRS][:MOST_PAIRS]

    def terms(self, lane: str) -> dict[str, Any]:
        """What an estimate depends on."""
        asked = {
            "endpoint": self.endpoint,
            "completion_window": self.window,
            "lane": lane,
            "on_invalid": self.on_invalid,
        }
        return asked | ({"model": self.model} if self.model else {})

    def create(self, file: str) -> dict[str, Any]:
        """The body that makes the batch; raises BadRequest for pairs that are none."""
        asked: dict[str, Any] = self.terms(self.lane) | {"input_file_id": file}
        asked |= {"dedup": self.dedup, "plan": self.plan, "trace": self.trace}
        if metadata := self._metadata():
            asked["metadata"] = metadata
        if cache := self._cache():
            asked["cache"] = cache
        if self.output_days:
            asked["output_expires_after"] = {"anchor": "created_at", "seconds": self._output_seconds()}
        if self.webhook_url:
            webhook: dict[str, Any] = {"url": self.webhook_url, "events": list(self.webhook_events)}
            asked["webhook"] = webhook | ({"secret": self.webhook_secret} if self.webhook_secret else {})
        return asked

    def _metadata(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for key, value in self.pairs:
            if not key:
                raise BadRequest(f"The value {value[:60]!r} has no key.", param="metadata")
            if key in found:
                raise BadRequest(f"The key {key[:60]!r} is there twice.", param="metadata")
            found[key] = value
        return found

    def _output_seconds(self) -> int:
        try:
            days = decimal_or_none(self.output_days, "output_days") or 0.0
        except FormRefused:
            days = 0.0
        seconds = round(min(days, _MOST_OUTPUT_DAYS + 1) * _DAY)
        if not _LEAST_OUTPUT_SECONDS <= seconds <= _MOST_OUTPUT_DAYS * _DAY:
            message = f"Output files are kept for an hour (0.05 days) to {_MOST_OUTPUT_DAYS} days."
            raise BadRequest(message, param="output_expires_after")
        return seconds

    def _cache(self) -> dict[str, Any]:
        asked: dict[str, Any] = {"mode": self.cache} if self.cache else {}
        if self.cache_seconds:
            is_number = self.cache_seconds.isascii() and self.cache_seconds.isdecimal() and len(self.cache_seconds) < 10
            asked["ttl_seconds"] = int(self.cache_seconds) if is_number else self.cache_seconds
        return asked


def first(endpoint: str, on_invalid: str) -> NewBatchForm:
    """The form as it is shown first."""
    known: Collection[str] = tuple(OnInvalid)
    return NewBatchForm(
        endpoint=named(endpoint) if named(endpoint) in BATCHED else BATCHED[0],
        on_invalid=on_invalid if on_invalid in known else OnInvalid.FAIL.value,
    )


def typed(sent: SentForm) -> NewBatchForm:
    """The form as somebody sent it."""
    pairs = zip(sent.all("key"), sent.all("value"), strict=False)
    stripped = ((key.strip(), value.strip()) for key, value in pairs)
    return NewBatchForm(
        token=sent["token"] or _token(),
        pairs=tuple(pair for pair in stripped if any(pair))[:MOST_PAIRS],
        webhook_events=tuple(one for one in BATCH_EVENT_TYPES if one in sent.all("event")),
        dedup="dedup" in sent,
        plan="plan" in sent,
        trace="trace" in sent,
        **{
            name: sent[name]
            for name in (
                "endpoint", "model", "lane", "window", "on_invalid", "webhook_url", "webhook_secret", "cache",
                "cache_seconds", "output_days",
            )
        },
    )  # fmt: skip


def field_of(param: str | None) -> str:
    """The field that a refusal stands beside; empty: it is about the whole."""
    asked = param or ""
    return FIELDS.get(asked) or FIELDS.get(asked.partition(".")[0], "")
