"""Tokens: what an engine reported for recorded lines."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """Tokens that the engine reported for recorded lines."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    reused_output_tokens: int = 0
    """Of the output tokens: those of answers that were there already, which no engine made again."""
    equal_input_tokens: int = 0
    """Of the cached tokens: those of lines whose answer an equal line got."""
    shared_input_tokens: int = 0
    """Of the cached tokens: those of lines whose answer was in the shared cache."""
    shared_output_tokens: int = 0
    """Of the reused tokens: likewise."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.cached_tokens + other.cached_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.reused_output_tokens + other.reused_output_tokens,
            self.equal_input_tokens + other.equal_input_tokens,
            self.shared_input_tokens + other.shared_input_tokens,
            self.shared_output_tokens + other.shared_output_tokens,
        )

    @property
    def prefix_tokens(self) -> int:
        """Of the cached tokens: those that the engine's prefix cache had."""
        return self.cached_tokens - self.equal_input_tokens - self.shared_input_tokens

    @property
    def equal_output_tokens(self) -> int:
        """Of the reused tokens: those of lines whose answer an equal line got."""
        return self.reused_output_tokens - self.shared_output_tokens

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens
