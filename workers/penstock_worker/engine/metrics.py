"""Metrics of an engine, off its Prometheus page: one reader for the watchdog and the budget, and the page passed on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

MOST_SAMPLES: Final = 20_000
"""More of an engine are not passed on: vLLM has some 500, and what scrapes them keeps each for weeks."""
_SAMPLE: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S.*)")
_WORKER: Final = re.compile(r"(^|,)\s*worker=")


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


def passed_on(page: str, worker: str) -> str:
    """An engine's page as it is, each sample with the label `worker`; its own label of that name is `exported_worker`.

    What is no sample and no comment is left out, and so is all of it if it is too much.
    """
    rows: list[str] = []
    for row in page.splitlines():
        if row.startswith("#"):
            rows.append(row)
        elif (sample := _SAMPLE.fullmatch(row)) and not sample[1].startswith("penstock_"):
            labels = _WORKER.sub(r"\1exported_worker=", sample[2] or "").strip().rstrip(",")
            rows.append(f'{sample[1]}{{worker="{worker}"{"," if labels else ""}{labels}}} {sample[3]}')
        if len(rows) > MOST_SAMPLES:
            return ""
    return "".join(f"{row}\n" for row in rows)
