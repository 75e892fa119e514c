"""Form values: what was typed into a field, as the API takes it."""

from __future__ import annotations

import math
from typing import Final

_MOST_DIGITS: Final = 16


class FormRefused(Exception):
    """A form can't be taken as it is; its words are for whoever typed it."""

    status: Final = 400

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


def whole_or_none(typed: str, name: str) -> int | None:
    """A whole number, with or without commas, spaces and underscores between its digits; None of nothing."""
    digits = typed.translate({ord(one): None for one in ", _\u202f\u00a0"})
    if not digits:
        return None
    if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS:
        return int(digits)
    raise FormRefused(f"{name} is a whole number, or empty.", name)


def decimal_or_none(typed: str, name: str) -> float | None:
    """A number; None of nothing."""
    if not typed:
        return None
    try:
        number = float(typed)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise FormRefused(f"{name} is a number.", name)
    return number
