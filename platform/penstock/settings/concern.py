"""A concern: some settings that belong together, read from the environment as PENSTOCK_<NAME>."""

from __future__ import annotations

import math
from typing import Any

from pydantic import field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB


class Concern(BaseSettings):
    """A frozen value. A function takes the concern that it needs; the whole `Settings` is one of each.

    Names of validators are apart in all of them: of two that are equal the whole would have one.
    """

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_", frozen=True, extra="ignore")

    @field_validator("*")
    @classmethod
    def _is_an_amount(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not math.isfinite(value):
            raise ValueError("a finite number")
        if isinstance(value, int | float) and value < 0:
            raise ValueError("0 or more")
        return value
