"""Recent counters: what an engine's counters say of the last minute, as rates for people."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from penstock.domain.engines.engine_report import WINDOW_SECONDS
from penstock_worker.budget.line_budget import EngineLoad

_MOST_LOOKS: Final = 600


@dataclass(frozen=True)
class CounterRates:
    """Rates of the last minute; None before there were two looks, or where nothing was looked up."""

    input_tokens_per_second: float | None = None
    output_tokens_per_second: float | None = None
    prefix_hit_rate: float | None = None


class RecentCounters:
    """Looks of the last minute, some hundreds at most."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, EngineLoad]] = deque(maxlen=_MOST_LOOKS)

    def seen(self, at: float, load: EngineLoad) -> None:
        """The engine's counters at this moment, in seconds of any clock; an engine that began anew begins here, too."""
        if self._looks and load.tokens < self._looks[-1][1].tokens:
            self._looks.clear()
        self._looks.append((at, load))
        while self._looks[0][0] < at - WINDOW_SECONDS:
            self._looks.popleft()

    def rates(self) -> CounterRates:
        """The rates between the first look of the last minute and the last one; may be asked from any thread."""
        looks = list(self._looks)
        (began, first), (ended, last) = (looks[0], looks[-1]) if looks else ((0.0, None), (0.0, None))
        if first is None or last is None or ended <= began:
            return CounterRates()
        seconds, looked_up = ended - began, last.prefix_queries - first.prefix_queries
        output = last.output_tokens - first.output_tokens
        return CounterRates(
            input_tokens_per_second=round((last.tokens - first.tokens - output) / seconds, 1),
            output_tokens_per_second=round(output / seconds, 1),
            prefix_hit_rate=round((last.prefix_hits - first.prefix_hits) / looked_up, 4) if looked_up > 0 else None,
        )
