"""Texts as they are compared: normalised alike on both sides."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Final

from penstock.domain.evals.scorer import Normalisation

_SPACES: Final = re.compile(r"\s+")


def normalised(text: str, steps: Sequence[Normalisation]) -> str:
    """The text after these steps, whatever their order: case, punctuation, white space."""
    if Normalisation.LOWER in steps:
        text = text.casefold()
    if Normalisation.PUNCTUATION in steps:
        text = text.translate(_punctuation())
    if Normalisation.SPACES in steps:
        text = _SPACES.sub(" ", text)
    return text.strip() if Normalisation.TRIM in steps else text


@cache
def _punctuation() -> dict[int, None]:
    """All of Unicode's."""
    return {code: None for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("P")}
