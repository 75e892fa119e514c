"""A concern: some settings that belong together, read from the environment as PENSTOCK_<NAME>."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from pydantic import AfterValidator, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_MOST: Final = 2**63 - 1
"""What Postgres and queues can count."""
_MOST_SECONDS: Final = 100 * 366 * 86_400
"""Times are added to dates, which end."""


def must_be(words: str, read: Callable[[str], object]) -> AfterValidator:
    """For an annotation: a text that `read` raises no ValueError for, and what is said of any other."""

    def check(text: str) -> str:
        try:
            read(text)
        except ValueError:
            raise ValueError(words) from None
        return text

    return AfterValidator(check)


class Concern(BaseSettings):
    """A frozen value. A function takes the concern that it needs; the whole `Settings` is one of each."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_", frozen=True, extra="ignore")

    @field_validator("*")
    @classmethod
    def _is_an_amount(cls, value: Any, info: ValidationInfo) -> Any:
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, int | float):
                _check_amount(one, _MOST_SECONDS if str(info.field_name).endswith("_seconds") else _MOST)
        return value


def _check_amount(value: float, most: int) -> None:
    """Raise ValueError, which says what it must be."""
    if not math.isfinite(value):
        raise ValueError("a finite number")
    if value < 0:
        raise ValueError("0 or more")
    if value > most:
        raise ValueError(f"{most} or less")
