"""What the ingress's metrics page says: calls by how they ended, refusals, waits, the gate, and the budget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.domain.work.rank import Rank
from penstock_worker import line_metrics
from penstock_worker.admission.gate import Gate
from penstock_worker.ingress.call import Refusal
from penstock_worker.ingress.call_outcomes import CallOutcome

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_GAP_SECONDS: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)


class Latencies(Protocol):
    """Who steers by what waiting calls meet."""

    def ttft(self, seconds: float) -> None: ...
    def gap(self, seconds: float) -> None: ...


class IngressMetrics:
    """Counts of one ingress, in a registry of its own."""

    TYPE: Final = CONTENT_TYPE_LATEST

    def __init__(self, gate: Gate, latencies: Latencies, budget_loop: Collector) -> None:
        self._latencies = latencies
        registry = self._registry = CollectorRegistry()
        calls = Counter(
            "penstock_ingress_calls_ended", "Waiting calls by how they ended.", ["outcome"], registry=registry
        )
        self._ended = {outcome: calls.labels(outcome) for outcome in CallOutcome}
        refusals = Counter("penstock_ingress_refusals", "Calls that it refused.", ["reason"], registry=registry)
        self._refused = {refusal: refusals.labels(refusal) for refusal in Refusal}
        queue = Histogram(
            "penstock_ingress_queue_seconds",
            "Time of calls at the gate.",
            ["rank"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._queued = {rank: queue.labels(rank.name.lower()) for rank in Rank}
        self._ttft = Histogram(
            "penstock_ingress_ttft_seconds",
            "Time of streamed realtime calls from the ingress to the engine's first byte.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._gap = Histogram(
            "penstock_ingress_gap_seconds",
            "Time between two chunks of streamed realtime calls.",
            buckets=_GAP_SECONDS,
            registry=registry,
        )
        self._packed = Counter(
            "penstock_ingress_packed_calls", "Calls that were answered together with others.", registry=registry
        )
        self._standing = _Standing(gate)
        registry.register(self._standing)
        registry.register(budget_loop)

    def ended(self, outcome: CallOutcome) -> None:
        """A call that was asked has ended."""
        self._ended[outcome].inc()

    def refused(self, refusal: Refusal) -> None:
        """The ingress answered itself."""
        self._refused[refusal].inc()

    def queued(self, rank: Rank, seconds: float) -> None:
        """A call had its slot after so long."""
        self._queued[rank].observe(seconds)

    def packed(self, calls: int) -> None:
        """So many were one request to the engine, and have their answers."""
        self._packed.inc(calls)

    def ttft(self, seconds: float) -> None:
        """A streamed call had its first byte after so long."""
        self._latencies.ttft(seconds)
        self._ttft.observe(seconds)

    def gap(self, seconds: float) -> None:
        """So long passed between two chunks of a stream."""
        self._latencies.gap(seconds)
        self._gap.observe(seconds)

    def page(self, inside: int, engine: str | None) -> bytes:
        """The page in Prometheus' format, and behind it the engine's own (None: it gave none)."""
        self._standing.inside = inside
        self._standing.engine_answers = engine is not None
        return generate_latest(self._registry) + generate_latest(line_metrics.REGISTRY) + (engine or "").encode()


class _Standing(Collector):
    """Ingress and gate at the moment of the scrape."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.inside = 0
        self.engine_answers = False

    def collect(self) -> Iterator[Metric]:
        """One value each."""
        gate = self._gate
        yield _one("ingress_inside", "Calls inside, in the engine or in line for it.", self.inside)
        yield _one("engine_metrics_up", "1 if the engine's own metrics are on this page.", self.engine_answers)
        yield _one("gate_calls", "Realtime calls in the engine.", gate.calls)
        yield _one("gate_lines", "Batch lines and flex calls in the engine.", gate.lines)
        yield _one("gate_slots", "Requests that the engine runs at once.", gate.slots)
        yield _one("gate_trying", "1 while suspects have the engine to themselves.", gate.trying)
        yield _one("gate_budget", "Batch lines that may be in the engine.", gate.budget)
        waiting = GaugeMetricFamily("penstock_gate_waiting", "Who waits at the gate.", labels=["rank"])
        for rank in Rank:
            waiting.add_metric([rank.name.lower()], gate.waiting(rank))
        yield waiting


def _one(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"penstock_{name}", words, value=float(value))
