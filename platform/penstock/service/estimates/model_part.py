"""Model parts: one model's part of a batch, what all parts cost, and how long they take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.domain.accounts.batch_estimate import NOTHING, Spread
from penstock.domain.accounts.eta import FASTER, SLOWER, OpenWork, Span, Unknown, span
from penstock.domain.accounts.price import Price
from penstock.domain.accounts.tokens import Usage
from penstock.domain.ensembles.escalation import Reached
from penstock.settings.lines import LineSettings


@dataclass(frozen=True)
class ModelPart:
    """One model's part of it."""

    lines: Spread = NOTHING
    input_tokens: Spread = NOTHING
    output_tokens: Spread = NOTHING

    def __add__(self, other: ModelPart) -> ModelPart:
        return ModelPart(
            self.lines + other.lines,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )

    def times(self, much: Reached) -> ModelPart:
        """Of lines that are asked only so much of the time."""

        def part(one: Spread) -> Spread:
            return Spread(one.low * much.low, one.expected * much.expected, one.high * much.high)

        return ModelPart(part(self.lines), part(self.input_tokens), part(self.output_tokens))


def token_cost(parts: Mapping[str, ModelPart], valid: Mapping[str, Price]) -> tuple[int, int, int] | None:
    """Of the tokens; what is read from a cache costs less, and nobody knows before how much that will be."""
    if not parts or not parts.keys() <= valid.keys():
        return None

    def at(how: str) -> int:
        return sum(
            valid[name].tokens(
                Usage(
                    input_tokens=round(getattr(part.input_tokens, how)),
                    output_tokens=round(getattr(part.output_tokens, how)),
                )
            )
            for name, part in parts.items()
        )

    return at("low"), at("expected"), at("high")


def gpu_cost(
    parts: Mapping[str, ModelPart], prices: Mapping[str, Price], gpu_per_token: Mapping[str, float]
) -> tuple[int, int, int] | None:
    """Of the time that such tokens took lately; how far that may be off is as with any speed."""
    if not parts or not parts.keys() <= prices.keys() & gpu_per_token.keys():
        return None

    def at(how: str, factor: float) -> int:
        spent = (
            (getattr(part.input_tokens, how) + getattr(part.output_tokens, how)) * gpu_per_token[name]
            * prices[name].gpu for name, part in parts.items()
        )  # fmt: skip
        cost: int = round(sum(spent) / factor)
        return cost

    return at("low", FASTER), at("expected", 1.0), at("high", SLOWER)


def seconds(
    parts: Mapping[str, ModelPart], works: Mapping[str, OpenWork], settings: LineSettings
) -> tuple[Spread | None, Unknown | None]:
    """Until the slowest model's last answer; or why that is not known."""
    mine = [(parts[name], works[name]) for name in parts]
    if not mine or not all(work.lines_at_once for _, work in mine):
        return None, "no_worker"
    if not all(work.tokens_per_second for _, work in mine):
        return None, "not_measured"
    spans = [_span_of(part, work, settings) for part, work in mine]
    low, expected, high = (max(getattr(one, name) for one in spans) for name in ("low", "expected", "high"))
    return Spread(low, expected, high), None


def _span_of(part: ModelPart, work: OpenWork, settings: LineSettings) -> Spread:
    tokens = part.input_tokens + part.output_tokens

    def at(much: float) -> Span:
        given = dataclasses.replace(work, tokens=much, lines=max(1, round(part.lines.expected)))
        return span(given, settings.flush_seconds)

    return Spread(at(tokens.low).earliest, at(tokens.expected).expected, at(tokens.high).latest)
