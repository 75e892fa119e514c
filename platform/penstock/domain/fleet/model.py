"""Models: what is known of a model, and of its lines."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Model:
    """A known model, what its waiting calls were promised, and how many live workers serve it now."""

    name: str
    source: str
    created_at: datetime
    ttft_p95_ms: int | None
    itl_p95_ms: int | None
    workers: int
    engines: tuple[str, ...] = ()
    """The profiles of their engines."""
    lacks: tuple[str, ...] = ()
    """What one of these engines or another can't do."""


@dataclass(frozen=True)
class ModelFacts:
    """What a model's lately settled slices taught about its lines; None: nothing yet."""

    bytes_per_token: float | None = None
    """Bytes of a whole line (custom_id, url and all) over its input tokens, chat template included."""
    output_tokens: float | None = None
    """Mean length of an answer."""
    tokens_scale: float | None = None
    """Real over estimated tokens."""
