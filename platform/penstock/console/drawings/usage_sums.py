"""Sums of usage: what the API tells by bucket of time, added up. Money is decimal, never a float."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any


@dataclass
class UsageSum:
    """What several results come to."""

    name: str = ""
    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    """Of the input tokens: the engine or a cache had them."""
    output_tokens: int = 0
    reused_tokens: int = 0
    """Of the output tokens: those of answers that were there already."""
    gpu_seconds: float = 0.0
    cost: Decimal | None = None
    saved: Decimal | None = None
    currency: str = ""

    @property
    def tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens

    @property
    def fresh_input(self) -> int:
        """Input tokens that had to be computed."""
        return self.input_tokens - self.cached_tokens

    @property
    def fresh_output(self) -> int:
        """Output tokens that had to be generated."""
        return self.output_tokens - self.reused_tokens

    @property
    def cost_text(self) -> str | None:
        """As the API tells money."""
        return None if self.cost is None else str(self.cost)

    @property
    def saved_text(self) -> str | None:
        """As the API tells money."""
        return None if self.saved is None else str(self.saved)

    def add(self, result: Mapping[str, Any]) -> None:
        """Add one result of the API."""
        self.requests += result["num_model_requests"]
        self.input_tokens += result["input_tokens"]
        self.cached_tokens += result["input_cached_tokens"]
        self.output_tokens += result["output_tokens"]
        self.reused_tokens += result["output_reused_tokens"]
        if (cost := result["cost"]) is not None:
            self.cost = (self.cost or Decimal(0)) + Decimal(cost["tokens"]) + Decimal(cost["gpu"])
            self.gpu_seconds += cost["gpu_seconds"]
            self.currency = cost["currency"]
        if (saved := result["saved"]) is not None:
            self.saved = (self.saved or Decimal(0)) + Decimal(saved)


def total(buckets: Sequence[Mapping[str, Any]]) -> UsageSum:
    """All of it."""
    return _sum("", (result for bucket in buckets for result in bucket["results"]))


def by(buckets: Sequence[Mapping[str, Any]], group: str) -> list[UsageSum]:
    """By a group that the API was asked for, those with most tokens first."""
    apart: dict[str, UsageSum] = {}
    for result in (result for bucket in buckets for result in bucket["results"]):
        name = name_of(result, group)
        apart.setdefault(name, UsageSum(name)).add(result)
    return sorted(apart.values(), key=lambda one: (-one.tokens, one.name))


def name_of(result: Mapping[str, Any], group: str) -> str:
    """Which part of its group a result is, in words."""
    if group == "batch" or (group == "lane" and not result["batch"]):
        return "batches and jobs" if result["batch"] else "waiting calls"
    if group == "lane":
        return str(result["lane"] or "lane not recorded")
    if group == "key":
        name, id = result["api_key_name"], result["api_key_id"]
        return f"{name or 'a key that is gone'} ({id})" if id else "key not recorded"
    return str(result["model"] or "") if group == "model" else ""


def _sum(name: str, results: Iterable[Mapping[str, Any]]) -> UsageSum:
    made = UsageSum(name)
    for result in results:
        made.add(result)
    return made
