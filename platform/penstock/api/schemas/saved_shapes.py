"""Saved: what caches and equal lines spared a batch or job, as the API tells it."""

from __future__ import annotations

from pydantic import BaseModel, Field

from penstock.domain.accounts.price import money
from penstock.domain.work.batch import Batch


class SavedPart(BaseModel):
    """What one of them spared."""

    input_tokens: int = Field(description="That no engine had to compute. They cost cached input.")
    output_tokens: int = Field(description="That no engine had to generate. They cost nothing.")
    amount: str | None = Field(description="What these would have cost more; null without any price.")


class SavedShape(BaseModel):
    """What the recorded lines would have taken and cost more, by the price at which each was recorded."""

    currency: str | None
    amount: str | None = Field(description="Of all three, exactly; null without any price.")
    prefix_cache: SavedPart = Field(description="Beginnings of prompts that the engine still had.")
    equal_lines: SavedPart = Field(description="Lines for which an equal one was asked (`dedup`).")
    shared_cache: SavedPart = Field(description="Lines whose answer was in the shared cache (`cache`).")


def saved(one: Batch) -> SavedShape | None:
    """A batch's; None until it is planned, and of one that ended before this was kept."""
    spared, used = one.savings, one.usage
    if spared is None:
        return None

    def part(input_tokens: int, output_tokens: int, picos: int) -> SavedPart:
        return SavedPart(input_tokens=input_tokens, output_tokens=output_tokens, amount=amount(picos))

    def amount(picos: int) -> str | None:
        return None if one.currency is None else money(picos)

    return SavedShape(
        currency=one.currency,
        amount=amount(spared.total),
        prefix_cache=part(used.prefix_tokens, 0, spared.prefix),
        equal_lines=part(used.equal_input_tokens, used.equal_output_tokens, spared.equal),
        shared_cache=part(used.shared_input_tokens, used.shared_output_tokens, spared.shared),
    )
