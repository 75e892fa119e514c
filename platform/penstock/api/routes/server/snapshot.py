"""The snapshot: what a scrape of the API shows of the queue, the fleet and this process at that moment."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

import penstock
from penstock.blobs.fault_tally import Fault
from penstock.domain.calls.ingress import Ingress, Load
from penstock.domain.counted import COUNTED, HISTOGRAMS, LABELLED, PARTS
from penstock.domain.work.batch import BatchState
from penstock.domain.work.lane import LANES
from penstock.service.admin.health import Gauges
from penstock.service.admin.overview import ModelOverview, Overview
from penstock.service.calls.worker_directory import WorkerDirectory

_KINDS: Final = ("batch", "job")
_ENDS: Final = (BatchState.COMPLETED, BatchState.FAILED, BatchState.EXPIRED, BatchState.CANCELLED)
_OPEN: Final = [(kind, state, lane) for kind in _KINDS for state in BatchState if state not in _ENDS for lane in LANES]
_EVERY: Final[Mapping[str, Iterable[tuple[str, ...]]]] = {
    "batches_ended": [(kind, lane, end) for kind in _KINDS for lane in LANES for end in _ENDS],
    "batches_late": [(lane,) for lane in LANES],
    "cost": [(lane,) for lane in LANES],
    "blob_errors": [(kind,) for kind in get_args(Fault)],
}
"""Counters whose label values are known: each is there from the start, so that the first of a kind is an increase."""


class Ingresses(Collector):
    """What this process knows of the workers that take calls; each of them says more at its own ingress."""

    def __init__(self, directory: WorkerDirectory) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        """One value for each ingress of the table."""
        age = self._directory.age_seconds
        yield _gauge(
            "worker_directory_age_seconds",
            "Age of the table of ingresses; -1: none was read.",
            [],
            [((), -1.0 if age is None else age)],
        )
        ingresses = [(worker_labels(one), one.load) for one in self._directory.ingresses]
        labels = ["worker", "model", "region"]
        shown: tuple[tuple[str, str, Callable[[Load], float]], ...] = (
            ("ingress_open", "1 if the worker takes calls.", lambda load: load.open),
            ("ingress_calls", "Waiting calls inside, in the engine or in line.", lambda load: load.calls),
            ("ingress_lines", "Batch lines in the engine.", lambda load: load.lines),
            ("ingress_tokens_per_second", "Batch tokens recorded a second.", lambda load: load.tokens_per_second),
        )
        for name, words, value in shown:
            yield _gauge(name, words, labels, [(of, float(value(load))) for of, load in ingresses])
        budgets = [((*of, load.reason), float(load.budget)) for of, load in ingresses]
        words = "Batch lines that may be in the engine, and why no more and no fewer."
        yield _gauge("ingress_budget", words, [*labels, "reason"], budgets)


def worker_labels(ingress: Ingress) -> tuple[str, str, str]:
    """Worker, model and region, as metrics name them."""
    return str(ingress.worker)[:8], ingress.model, ingress.region


class Snapshot(Collector):
    """What Postgres says; None: it said nothing."""

    def __init__(self, gauges: Gauges | None) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """One value for each label set that exists now."""
        yield _gauge("database_up", "1 if Postgres answered this scrape.", [], [((), float(self._gauges is not None))])
        if self._gauges is None:
            return
        labels = ["model", "lane", "state"]
        for index, what in ((3, "slices"), (4, "lines"), (5, "tokens")):
            values = [(row[:3], float(row[index])) for row in self._gauges.backlog]
            yield _gauge(f"backlog_{what}", f"Open {what}: queued, ready (hinted) and running.", labels, values)
        workers = [(key, float(count)) for key, count in self._gauges.workers.items()]
        yield _gauge("live_workers", "Processes that beat lately.", ["kind", "model", "state"], workers)
        leases = [((kind,), float(self._gauges.leases.get(kind, 0))) for kind in ("slice", "validate", "assemble")]
        yield _gauge("open_leases", "Leases that are held.", ["kind"], leases)
        owed = self._gauges.webhooks
        for name, words, value in (
            ("webhook_pending", "Deliveries that are due or wait for their next attempt.", owed.pending),
            ("webhook_due", "Deliveries whose time has come, and that nobody is sending.", owed.due),
            ("webhook_late_seconds", "How long the oldest of these is due.", owed.late_seconds),
        ):
            yield _gauge(name, words, [], [((), float(value))])
        batches = dict.fromkeys(_OPEN, 0.0) | {row[:3]: float(row[3]) for row in self._gauges.batches}
        yield _gauge("batches", "Batches and jobs that have not ended.", ["kind", "state", "lane"], batches.items())
        yield from _of_overview(self._gauges.overview, self._gauges.failed_starts)
        yield from _counters(self._gauges.counts)
        yield from _histograms(self._gauges.counts)


def _of_overview(seen: Overview, failed_starts: Mapping[str, int]) -> Iterator[Metric]:
    """What an operator's overview says, too."""
    by_lane = ["model", "lane"]
    lanes = [((model.model, str(lane)), one) for model in seen.models for lane, one in model.lanes.items()]
    late = [(key, float(one.late)) for key, one in lanes]
    yield _gauge("batches_at_risk", "Open batches and jobs that are expected after their deadline.", by_lane, late)
    words = "Least time to a deadline in seconds, less what the work before it and its own take at the measured rate."
    slack = [(key, one.slack_seconds) for key, one in lanes if one.slack_seconds is not None]
    yield _gauge("deadline_slack_seconds", words, by_lane, slack)
    words = "Age in seconds of the oldest open batch or job of which nothing runs."
    waiting = [(key, one.waiting_seconds or 0.0) for key, one in lanes]
    yield _gauge("oldest_waiting_seconds", words, by_lane, waiting)
    of_model: tuple[tuple[str, str, dict[str, float | None]], ...] = (
        (
            "backlog_seconds",
            "Time that all open work takes at the measured rate, in seconds; missing where none was measured.",
            {one.model: None if one.hours is None else 3600 * one.hours for one in seen.models},
        ),
        (
            "workers_ready",
            "Ready gpu workers; 0 of a model that has open work and none.",
            {one.model: float(one.workers) for one in seen.models},
        ),
        (
            "models_asleep",
            "Hosts of pools on which the model is asleep.",
            {one.model: float(one.asleep) for one in seen.models},
        ),
        (
            "promised_ttft_seconds",
            "95th percentile of time to first token that waiting calls were promised, in seconds.",
            {one.model: None if one.promised_ttft_ms is None else one.promised_ttft_ms / 1000 for one in seen.models},
        ),
        (
            "met_ttft_p95_seconds",
            "95th percentile of time to first token of the last minute's calls, in seconds.",
            {one.model: None if one.ttft_p95_ms is None else one.ttft_p95_ms / 1000 for one in seen.models},
        ),
        ("engine_slots", "Requests that the model's engines take at once.", _each(seen, lambda one: one.slots)),
        ("engine_slots_used", "Of these: those that are taken.", _each(seen, lambda one: one.slots_used)),
        (
            "worker_failed_starts",
            "How often in a row an engine did not start, at the worker of the model that stands worst.",
            {model: float(times) for model, times in failed_starts.items()},
        ),
    )
    for name, words, values in of_model:
        yield _gauge(name, words, ["model"], [((model,), one) for model, one in values.items() if one is not None])


def _each(seen: Overview, value: Callable[[ModelOverview], float]) -> dict[str, float | None]:
    return {one.model: float(value(one)) for one in seen.models}


def _counters(counts: Mapping[str, int]) -> Iterator[CounterMetricFamily]:
    """What was counted in Postgres."""
    for name, words in COUNTED.items():
        labels = LABELLED.get(name, ())
        values = dict.fromkeys(_EVERY.get(name, ()), 0)
        for key, count in counts.items():
            base, _, value = key.partition("/")
            if base == name:
                values[tuple(value.split("/", len(labels) - 1)) if labels else ()] = count
        family = CounterMetricFamily(f"penstock_{name}", words, labels=labels)
        for of, count in values.items():
            family.add_metric(of, count / PARTS.get(name, 1))
        yield family


def _histograms(counts: Mapping[str, int]) -> Iterator[HistogramMetricFamily]:
    """What was counted in Postgres in buckets."""
    for name, histogram in HISTOGRAMS.items():
        family = HistogramMetricFamily(f"penstock_{name}", histogram.words, labels=["lane"])
        for lane in LANES:
            buckets, total = [], 0
            for bound in histogram.names:
                total += counts.get(f"{name}/{lane}/{bound}", 0)
                buckets.append((bound, float(total)))
            family.add_metric([lane], buckets, counts.get(f"{name}/{lane}/sum", 0) / 1000)
        yield family


class ApiProcess(Collector):
    """What this API process says of itself."""

    def __init__(self, blobs_good: bool, connections: int, most_connections: int) -> None:
        self._blobs_good = blobs_good
        self._connections = {"used": connections, "most": most_connections}

    def collect(self) -> Iterator[Metric]:
        """One value each."""
        version = (penstock.__version__, platform.python_version())
        yield _gauge("build_info", "1, with the version of this API process.", ["version", "python"], [(version, 1.0)])
        yield _gauge("blobs_up", "1 if the blob store works, seen from here.", [], [((), float(self._blobs_good))])
        words = "Postgres connections of this API process: those in use, and the most."
        values = [((of,), float(count)) for of, count in self._connections.items()]
        yield _gauge("api_connections", words, ["of"], values)


def _gauge(
    name: str, words: str, labels: list[str], values: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"penstock_{name}", words, labels=labels)
    for key, value in values:
        family.add_metric(list(key), value)
    return family
