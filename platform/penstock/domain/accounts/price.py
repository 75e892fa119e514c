"""Prices: what a model's work costs, in whole numbers so small that no product and no sum is ever rounded.

All money is counted in picounits, 10^-12 of the currency. A price has at most six decimals, per million tokens and per
GPU-second; for one token and one GPU-microsecond it is a whole number of picounits then, and costs are products of
whole numbers. Floats would make a sum depend on its order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from penstock.domain.accounts.tokens import Usage
from penstock.domain.api_errors import BadRequest
from penstock.domain.money import PICOS

_AMOUNT: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?", re.ASCII)


@dataclass(frozen=True)
class Price:
    """Picounits for one token of each kind and for one GPU-microsecond, from a time on."""

    model: str
    valid_from: datetime
    currency: str
    input: int
    cached_input: int
    output: int
    gpu: int

    def tokens(self, usage: Usage) -> int:
        """What these tokens cost in picounits: what was there already, read or made, is not made again."""
        return (
            max(0, usage.input_tokens - usage.cached_tokens) * self.input
            + usage.cached_tokens * self.cached_input
            + (usage.output_tokens - usage.reused_output_tokens) * self.output
        )


def read(text: str, name: str) -> int:
    """A price per million tokens or per GPU-second as picounits for one token or GPU-microsecond; raises BadRequest."""
    if not _AMOUNT.fullmatch(text):
        raise BadRequest(
            f"{name} must be an amount with at most six decimals, e.g. 0.15, not {text[:40]!r}.", param=name
        )
    return int(Decimal(text) * 10**6)


def rate(picos: int) -> str:
    """The reverse of `read`."""
    return _decimal(picos, 10**6)


def read_money(text: str, name: str) -> int:
    """An amount of the currency in picounits; raises BadRequest."""
    return read(text, name) * (PICOS // 10**6)


def money(picos: int) -> str:
    """The reverse of `read_money`: an exact decimal number of the currency."""
    return _decimal(picos, PICOS)


def _decimal(value: int, unit: int) -> str:
    sign, (whole, part) = "-" * (value < 0), divmod(abs(value), unit)
    digits = f"{part:0{len(str(unit)) - 1}d}".rstrip("0")
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"
