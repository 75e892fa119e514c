"""Limits: what the operator allows a tenant or a key. Where nothing is set, the platform's default holds.

A rate is a bucket (a token bucket: RFC 2697) which holds a minute's worth and fills evenly. What is held at once is
counted by each API process for itself. What is kept is counted in the database, in the transaction that adds to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from penstock.domain.api_errors import BadRequest

_MOST: Final = 2**53 - 1
"""As much as JSON's numbers are exact."""


class LimitKind(StrEnum):
    """How a limit counts."""

    RATE = "rate"
    """In a minute, over all API processes."""
    AT_ONCE = "at_once"
    """At this moment, in one API process."""
    KEPT = "kept"
    """All there is."""


class LimitName(StrEnum):
    """What may be limited."""

    REQUESTS_PER_MINUTE = "requests_per_minute"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    CALLS = "calls_at_once"
    SEQUENCES = "sequences_at_once"
    WAITS = "waits_at_once"
    ESTIMATES = "estimates_at_once"
    UPLOAD_BYTES = "upload_bytes_at_once"
    OPEN_BATCHES = "open_batches"
    QUEUED_LINES = "queued_lines"
    QUEUED_TOKENS = "queued_tokens"
    FILES = "files"
    STORED_BYTES = "stored_bytes"
    ENDPOINTS = "webhook_endpoints"
    KEYS = "api_keys"

    __hash__ = str.__hash__
    """As that of its text, which it equals; an enum's own is written in Python, and each request looks limits up."""


@dataclass(frozen=True, slots=True)
class LimitRule:
    """How a limit counts, and in words what."""

    kind: LimitKind
    words: str
    alone: bool = False
    """Who asks for more than there is at all is let in while nothing else is held: no waiting would help it."""


RULES: Final[Mapping[LimitName, LimitRule]] = {
    LimitName.REQUESTS_PER_MINUTE: LimitRule(LimitKind.RATE, "requests a minute, whatever they ask"),
    LimitName.TOKENS_PER_MINUTE: LimitRule(LimitKind.RATE, "tokens of waiting calls a minute, asked and answered"),
    LimitName.CALLS: LimitRule(LimitKind.AT_ONCE, "waiting calls"),
    LimitName.SEQUENCES: LimitRule(LimitKind.AT_ONCE, "texts that waiting calls ask for", alone=True),
    LimitName.WAITS: LimitRule(LimitKind.AT_ONCE, "long polls and streams of events"),
    LimitName.ESTIMATES: LimitRule(LimitKind.AT_ONCE, "estimates"),
    LimitName.UPLOAD_BYTES: LimitRule(LimitKind.AT_ONCE, "bytes of uploads that are on their way"),
    LimitName.OPEN_BATCHES: LimitRule(LimitKind.KEPT, "batches and jobs that have not ended"),
    LimitName.QUEUED_LINES: LimitRule(LimitKind.KEPT, "lines of batches and jobs that have no answer yet"),
    LimitName.QUEUED_TOKENS: LimitRule(LimitKind.KEPT, "estimated tokens of such lines"),
    LimitName.FILES: LimitRule(LimitKind.KEPT, "files, and uploads that are to be one"),
    LimitName.STORED_BYTES: LimitRule(LimitKind.KEPT, "bytes of files, and of parts of uploads"),
    LimitName.ENDPOINTS: LimitRule(LimitKind.KEPT, "webhook endpoints"),
    LimitName.KEYS: LimitRule(LimitKind.KEPT, "keys that are valid"),
}

OF_KEYS: Final = frozenset(
    {
        LimitName.REQUESTS_PER_MINUTE,
        LimitName.TOKENS_PER_MINUTE,
        LimitName.CALLS,
        LimitName.SEQUENCES,
        LimitName.WAITS,
    }
)
"""What one key may be limited to, within its tenant's own limit."""

Limits = Mapping[LimitName, int]
"""What is set; a name that is left out has its default."""


def read(given: Mapping[str, int | None], *, of_key: bool = False) -> tuple[Limits, frozenset[LimitName]]:
    """Limits to be set, and those that get their default back (None); raise BadRequest."""
    there = sorted(OF_KEYS) if of_key else list(LimitName)
    new, gone = {}, set()
    for text, value in given.items():
        if text not in there:
            raise BadRequest(f"No such limit: {text[:64]!r}. There are {', '.join(there)}.", param=text[:64])
        name = LimitName(text)
        if value is None:
            gone.add(name)
        elif 0 <= value <= _MOST:
            new[name] = value
        else:
            raise BadRequest(f"{name} is a whole number from 0 to {_MOST}.", param=name)
    return new, frozenset(gone)
