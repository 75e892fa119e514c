"""Metrics of an engine, as vLLM's page tells them: one reader for the watchdog and the budget."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

_ROW: Final = re.compile(r"^(vllm:\w+)(?:\{.*\})? ([-+]?[\d.]+(?:[eE][-+]?\d+)?)$", re.MULTILINE)


def read(page: str) -> Mapping[str, Sequence[float]]:
    """The values of each metric of vLLM, one for each engine where it runs several; nothing if it tells none."""
    found: dict[str, list[float]] = {}
    for name, value in _ROW.findall(page):
        found.setdefault(name, []).append(float(value))
    return found
