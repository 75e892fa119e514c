"""Estimates: the tokens that a line will cost, before any tokenizer saw it."""

from __future__ import annotations

from penstock.formats.input import Checked
from penstock.settings import Settings


def tokens(line: Checked, settings: Settings) -> int:
    """Body bytes over bytes a token, and the answer that the line allows, or else the one that is expected."""
    expected = line.max_output_tokens or settings.expected_output_tokens
    return int(line.body_bytes / settings.bytes_per_token) + expected
