"""A concern: some settings that belong together, read from the environment as PENSTOCK_<NAME>."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pydantic import AfterValidator, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB


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
    def _is_an_amount(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not math.isfinite(value):
            raise ValueError("a finite number")
        if isinstance(value, int | float) and value < 0:
            raise ValueError("0 or more")
        return value
