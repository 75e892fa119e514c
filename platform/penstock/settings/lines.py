"""Lines: how they are asked and their answers recorded."""

from __future__ import annotations

from pydantic import Field

from penstock.settings.concern import Concern


class LineSettings(Concern):
    """What one line may take of an engine."""

    flush_seconds: float = Field(1.0, gt=0, description="Answers are recorded at least this often.")
    line_timeout_seconds: float = Field(
        600.0, gt=0, description="Longest time one line may take in the engine, over all its tries."
    )
    line_tries: int = Field(
        3, ge=1, description="A line that meets 429, 5xx or a broken connection is asked this often in all."
    )
    max_answer_bytes: int = Field(
        64 * 1024 * 1024, ge=1024, description="A line whose answer is larger ends as `answer_too_large`."
    )
    pack_lines: int = Field(
        64,
        ge=1,
        description="Most lines of embeddings or scores that go to an engine as one request; 1: each is one.",
    )
    pack_tokens: int = Field(
        4_000, ge=1, description="Most tokens that the inputs of such a request have together, but for a line's own."
    )
    isolate_prefix_caches: bool = Field(
        True, description="No tenant's answer time tells what another asked: prefix caches are salted by tenant."
    )
