"""The token heuristic: the tokens that a line will cost, before any tokenizer saw it."""

from __future__ import annotations

from typing import Final

from penstock.domain.fleet.model import ModelFacts
from penstock.domain.inference_endpoints import COMPUTING
from penstock.formats.input import Checked
from penstock.settings.plans import PlanSettings

_LEAST_PART: Final = 8
_MOST: Final = 2**31


def tokens(line: Checked, line_bytes: int, endpoint: str, facts: ModelFacts | None, settings: PlanSettings) -> int:
    """Bytes over bytes a token, and the answer that is expected.

    Where the model's own bytes per token are measured, the whole line counts, as in the measurement: what surrounds
    the body is tokens in a way too, since the chat template adds some to every line.
    """
    if facts and facts.bytes_per_token:
        asked = line_bytes / facts.bytes_per_token
    else:
        asked = len(line.body) / settings.bytes_per_token
    answer = answer_tokens(line.max_output_tokens, endpoint, facts, settings)
    return max(1, min(_MOST, int(asked + answer * line.answers)))


def longest(line: Checked, endpoint: str, facts: ModelFacts | None, settings: PlanSettings) -> int:
    """How many tokens an answer may have: what the line allows, else the model's mean. Which is longer orders lines."""
    if endpoint in COMPUTING:
        return 0
    if line.max_output_tokens is not None:
        return line.max_output_tokens
    return int(answer_tokens(None, endpoint, facts, settings))


def answer_tokens(most: int | None, endpoint: str, facts: ModelFacts | None, settings: PlanSettings) -> float:
    """The model's mean, as far as the line allows it; what a line allows is no forecast: most limits are generous.

    But no less than an eighth of what it allows: a mean that other batches' short answers made would cut a batch of
    long ones into slices that take many times as long as they should. Unmeasured, an answer is as long as it may be.
    """
    if endpoint in COMPUTING:
        return 0.0
    mean = facts.output_tokens if facts else None
    if most is None:
        return settings.expected_output_tokens if mean is None else mean
    return most if mean is None else min(most, max(mean, most / _LEAST_PART))
