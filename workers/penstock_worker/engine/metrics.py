"""Metrics of an engine, off its Prometheus page: one reader for the watchdog and the budget."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache


def read(page: str, names: frozenset[str]) -> Mapping[str, Sequence[float]]:
    """The values of these metrics, one for each engine where it runs several; a name that is not there is left out."""
    found: dict[str, list[float]] = {}
    for name, value in _rows(names).findall(page):
        found.setdefault(name, []).append(float(value))
    return found


@lru_cache(maxsize=16)
def _rows(names: frozenset[str]) -> re.Pattern[str]:
    either = "|".join(map(re.escape, sorted(names)))
    return re.compile(rf"^({either})(?:\{{.*\}})? ([-+]?[\d.]+(?:[eE][-+]?\d+)?)$", re.MULTILINE)
