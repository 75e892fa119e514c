"""The budget loop: looks at gate, waiting calls and engine every second or so, and sets the gate's budget.

It lives on the gate's loop. What it decides, and by what rules, is in line_budget.py; what it saw last, and why the
budget stands where it stands, is in its metrics.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.domain.calls.ingress import Slo
from penstock.domain.engines.engine_report import EngineReport
from penstock.domain.engines.profile import LoadMetrics
from penstock.domain.work.rank import OF_LANE, Rank
from penstock.settings.engine import EngineSettings
from penstock_worker.admission.backpressure import NO_PRESSURE, Backpressure
from penstock_worker.admission.gate import Gate
from penstock_worker.budget.latency import Latencies
from penstock_worker.budget.line_budget import Decision, EngineLoad, LineBudget, Observation, Reason
from penstock_worker.budget.pace import Pace
from penstock_worker.budget.recent_counters import RecentCounters
from penstock_worker.engine import metrics
from penstock_worker.engine.client import EngineClient, EngineGone, EngineTimeout

log = structlog.get_logger()

_MOST_ASKING_SECONDS: Final = 5.0
_SHARE: Final = 0.9
"""Of what callers were promised, what they may meet at the ingress: a tenth is for the way from there to them."""


class BudgetLoop(Collector):
    """Sets one gate's budget until it is cancelled."""

    def __init__(
        self,
        gate: Gate,
        client: EngineClient,
        latencies: Latencies,
        settings: EngineSettings,
        clock: Callable[[], float] = time.monotonic,
        pace: Pace | None = None,
        load: LoadMetrics | None = None,
        backpressure: Backpressure | None = None,
    ) -> None:
        """`load` is how the engine's page says how loaded it is; None if it says nothing."""
        self._backpressure = backpressure
        self._gate = gate
        self._pace = pace
        self._client = client
        self._latencies = latencies
        self._settings = settings
        self._clock = clock
        self._load = load
        self._line_budget = LineBudget(
            gate.most_lines, settings.kv_high, share=_SHARE, by_latency=load is None and backpressure is not None
        )
        self._calls = 0
        self._engine: EngineLoad | None = None
        self._recent = RecentCounters()
        self._changes = 0
        self._reason = Reason.ALL
        self.slo = Slo()
        """What the model's callers were promised; set from any thread."""
        gate.on_call = self._call_came

    @property
    def reason(self) -> str:
        """Why the budget stands where it stands; see line_budget.py."""
        return self._reason

    def report(self) -> EngineReport:
        """The engine at this moment, for people; may be asked from any thread."""
        gate, engine, profile = self._gate, self._engine, self._load
        rates = self._recent.rates()
        waiting = {str(lane): gate.waiting(rank) for lane, rank in OF_LANE.items()}
        calls = sum(gate.waiting(rank) for rank in Rank if rank.is_realtime)
        return EngineReport(
            slots=gate.slots,
            most_lines=gate.most_lines,
            calls=gate.calls,
            lines={str(lane): gate.held(rank) for lane, rank in OF_LANE.items()},
            waiting={"calls": calls, **waiting},
            lines_held=gate.lines_held,
            trying=gate.trying,
            kv_usage=round(engine.kv_usage, 4) if engine and profile and profile.kv_usage else None,
            preemptions=engine.preemptions if engine and profile and profile.preemptions else None,
            prefix_hit_rate=rates.prefix_hit_rate if profile and profile.prefix else None,
            input_tokens_per_second=rates.input_tokens_per_second if profile and profile.tokens else None,
            output_tokens_per_second=rates.output_tokens_per_second if profile and profile.tokens else None,
            ttft=self._latencies.recent_ttft(),
        )

    async def run(self) -> NoReturn:
        """Take a step every `budget_seconds`; a step that fails is logged, and the next one is taken."""
        while True:
            await asyncio.sleep(self._settings.budget_seconds)
            try:
                await self.step()
            except Exception as error:  # a bug of ours must not leave the budget where it stands for ever
                log.error("budget_loop_broken", exc_info=error)

    async def step(self) -> None:
        """Look once, and set the budget."""
        self._engine = await self._ask()
        if self._engine:
            self._recent.seen(self._clock(), self._engine)
        gate = self._gate
        if self._pace and self._engine:
            self._pace.seen(gate.lines_busy_seconds, self._engine.tokens)
        calls, self._calls = self._calls, 0
        ttft, gaps = self._latencies.take()
        if gate.refill:
            gate.refill.seen(gaps)
        self._line_budget.promise(self.slo)
        seen = Observation(
            at=self._clock(),
            lines=gate.lines,
            calls=calls + gate.calls,
            ttft=ttft,
            gaps=gaps,
            engine=self._engine,
            trying=gate.trying,
            pressure=self._backpressure.take() if self._backpressure else NO_PRESSURE,
        )
        self._set(self._line_budget.step(seen))

    def _call_came(self) -> None:
        self._calls += 1
        if self._reason is Reason.NO_CALLS:
            self._set(self._line_budget.call_came())

    def _set(self, decision: Decision) -> None:
        if (decision.budget, decision.reason) == (self._gate.budget, self._reason):
            return
        log.info("budget", lines=decision.budget, reason=str(decision.reason), before=self._gate.budget)
        self._changes += decision.budget != self._gate.budget
        self._reason = decision.reason
        if decision.budget != self._gate.budget:
            self._gate.budget = decision.budget

    async def _ask(self) -> EngineLoad | None:
        if self._load is None:
            return None
        seconds = min(_MOST_ASKING_SECONDS, 4 * self._settings.budget_seconds)
        try:
            return engine_load(await self._client.metrics(self._load.path, seconds), self._load)
        except (EngineGone, EngineTimeout):
            return None  # The supervisor finds out why.

    def collect(self) -> Iterator[Metric]:
        """What the metrics page says of the line budget."""
        search, engine = self._line_budget.search, self._engine
        yield _gauge("batch_lines_most", "Batch lines that may be in the engine at most (n).", self._gate.most_lines)
        yield _gauge(
            "batch_budget_learned", "The most batch lines that keep the promise, as far as is known.", search.budget
        )
        standing = GaugeMetricFamily(
            "penstock_batch_budget_reason", "1 for why the budget stands where it stands.", labels=["reason"]
        )
        for reason in Reason:
            standing.add_metric([reason], float(reason is self._reason))
        yield standing
        yield CounterMetricFamily("penstock_batch_budget_changes", "Moves of the budget.", value=self._changes)
        if self._gate.refill:
            bound = self._gate.refill.tokens_per_second
            yield _gauge(
                "refill_tokens_per_second",
                "Prompt tokens of batch lines that may enter the engine beside waiting calls; 0: nothing is bounded.",
                bound if math.isfinite(bound) else 0.0,
            )
        promised = GaugeMetricFamily(
            "penstock_slo_p95_seconds", "95th percentile that waiting calls were promised.", labels=["of"]
        )
        met = GaugeMetricFamily(
            "penstock_slo_window_p95_seconds",
            "The same as it is met at the present budget, seen at the ingress.",
            labels=["of"],
        )
        samples = GaugeMetricFamily("penstock_slo_window_samples", "Samples behind it.", labels=["of"])
        for name, evidence in search.evidence.items():
            promised.add_metric([name], search.slo.seconds[name])
            met.add_metric([name], evidence.p95)
            samples.add_metric([name], len(evidence))
        yield from (promised, met, samples)
        if self._backpressure:
            refused = CounterMetricFamily(
                "penstock_engine_refusals", "Requests that the engine turned away since it had enough.", labels=["of"]
            )
            refused.add_metric(["lines"], self._backpressure.refused_lines)
            refused.add_metric(["calls"], self._backpressure.refused_calls)
            yield refused
        abandoned = self._client.abandoned
        yield CounterMetricFamily(
            "penstock_engine_abandoned",
            "Requests that the engine went on with, or was told to end, after nobody waited for them any more.",
            value=abandoned.total,
        )
        yield _gauge("engine_abandoned_now", "Those that hold a slot now.", abandoned.running)
        if engine:
            yield _gauge("engine_running", "Requests that run in the engine.", engine.running)
            yield _gauge("engine_waiting", "Requests that wait in the engine.", engine.waiting)
            yield _gauge("engine_kv_usage", "Part of the engine's KV cache in use.", engine.kv_usage)
            yield CounterMetricFamily(
                "penstock_engine_preemptions",
                "Requests that the engine threw out of its cache.",
                value=engine.preemptions,
            )


def engine_load(page: str, load: LoadMetrics) -> EngineLoad | None:
    """Read an engine's metrics; None if they are not there. Data-parallel engines add up, the fullest cache counts."""
    found = metrics.read(page, load.names)
    if not found:
        return None

    def total(name: str | None) -> int:
        return int(sum(found.get(name or "", ())))

    return EngineLoad(
        running=total(load.running),
        waiting=total(load.waiting),
        kv_usage=max(found.get(load.kv_usage or "", (0.0,))),
        preemptions=total(load.preemptions),
        tokens=sum(map(total, load.tokens)),
        output_tokens=sum(map(total, load.tokens[1:])),
        prefix_queries=total(load.prefix[0]) if load.prefix else 0,
        prefix_hits=total(load.prefix[1]) if load.prefix else 0,
    )


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"penstock_{name}", words, value=float(value))
