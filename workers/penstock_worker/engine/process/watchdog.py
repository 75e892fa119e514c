"""The watchdog: an engine that has requests but makes no step is hung, and a hung engine is a dead engine.

Health probes do not see it: vLLM's HTTP server answers them while its EngineCore stands still. Its counters do: every
step of the scheduler moves one of them (`vllm:iteration_tokens_total` counts steps, the others what they brought). An
engine without such counters is left to the health probe: its silence says nothing, unless it is the computing loop
itself that would tell them (llama.cpp).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from penstock.domain.engines.profile import LoadMetrics
from penstock_worker.engine import metrics
from penstock_worker.engine.process import probe


class Watchdog:
    """Looks at one engine start's counters from time to time."""

    def __init__(self, socket: Path, load: LoadMetrics | None, stuck_seconds: float, now: float) -> None:
        self._socket = socket
        self._load = load
        self._stuck_seconds = stuck_seconds
        self._steps = -1.0
        self._moved_at = now

    def look(self, now: float) -> str:
        """Why the engine counts as hung, or nothing. An engine that shows no counters is left to the health probe."""
        if self._load is None:
            return ""
        answer = probe.get(self._socket, self._load.path, 2.0)
        if answer is None and self._load.of_its_loop:
            silent_seconds = now - self._moved_at
            hung = silent_seconds > self._stuck_seconds
            return f"Its loop has told nothing of its load for {silent_seconds:.0f} s." if hung else ""
        read = None if answer is None or answer[0] != 200 else _read(answer[1], self._load)
        if read is None:
            return ""
        busy, steps = read
        if not busy or steps != self._steps:
            self._steps, self._moved_at = steps, now
        if now - self._moved_at > self._stuck_seconds:
            return f"It has made no step for {self._stuck_seconds:.0f} s, with {busy:.0f} requests in it."
        return ""


def _read(page: bytes, load: LoadMetrics) -> tuple[float, float] | None:
    """Requests in the engine, and a number that every step makes larger; None if the page does not tell."""
    found = metrics.read(page.decode(errors="replace"), load.names)
    if load.busy.isdisjoint(found):
        return None
    return _sum(found, load.busy), _sum(found, load.steps)


def _sum(found: Mapping[str, Sequence[float]], names: Iterable[str]) -> float:
    return sum(sum(found.get(name, ())) for name in names)
