"""Tunings: how fast one way to start a model's engine is on one type of device."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime

from penstock.domain.models.version import Definition


@dataclass(frozen=True)
class Tuning:
    """One point of a tuning: what was started where, and what was measured."""

    model: str
    definition: Definition
    device: str
    """The type of device: a GPU's name, or a CPU's with its number of cores."""
    digest: str | None
    """What makes its answers its own; None where that can't be known."""
    chosen: bool
    """Whether the tuning recommends it."""
    tokens_per_second: float | None = None
    """Of prompts and answers together, with the engine full; None: it did not start, or not work."""
    kv_tokens: int | None = None
    """Tokens that its KV cache holds; None: the engine does not say."""
    load_seconds: float | None = None
    """From its start until it was ready."""
    wake_seconds: float | None = None
    """From asleep until it answered; None: it can't sleep, or nobody tried."""
    memory_bytes: int | None = None
    """Of GPUs, or of the processes where it computes on a CPU; None: nobody can tell."""
    trouble: str | None = None
    """Why it has no speed."""
    measured_at: datetime | None = None

    @property
    def key(self) -> str:
        """What was started, in so many bytes however long its arguments are."""
        definition = self.definition
        told = [self.model, definition.engine, definition.source, *definition.arguments]
        return hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest()
