"""Metrics: what a Prometheus scrape sees of this process and of the platform's queue.

They count over all tenants, so they are the operator's: read with `PENSTOCK_METRICS_TOKEN` as a Bearer token. Where an
address comes from says nothing, since a proxy on the same machine is loopback too: an operator who wants them open says
so (`PENSTOCK_METRICS_OPEN`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here
from penstock.domain.api_errors import Forbidden, Unauthorized, Unavailable
from penstock.domain.calls.ingress import Ingress, Load
from penstock.domain.counted import COUNTED, LABELLED
from penstock.service.admin import health
from penstock.service.admin.health import Gauges
from penstock.service.calls.worker_directory import WorkerDirectory
from penstock.settings.servers import ServerSettings

router = APIRouter(tags=["health"], responses=DOCUMENTED)


class _Ingresses(Collector):
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
        ingresses = self._directory.ingresses
        labels = ["worker", "model", "region"]
        shown: tuple[tuple[str, str, Callable[[Load], float]], ...] = (
            ("ingress_open", "1 if the worker takes calls.", lambda load: load.open),
            ("ingress_calls", "Waiting calls inside, in the engine or in line.", lambda load: load.calls),
            ("ingress_lines", "Batch lines in the engine.", lambda load: load.lines),
            ("ingress_tokens_per_second", "Batch tokens recorded a second.", lambda load: load.tokens_per_second),
        )
        for name, words, value in shown:
            yield _gauge(name, words, labels, [(_labels(ingress), float(value(ingress.load))) for ingress in ingresses])
        budgets = [((*_labels(ingress), ingress.load.reason), float(ingress.load.budget)) for ingress in ingresses]
        words = "Batch lines that may be in the engine, and why no more and no fewer."
        yield _gauge("ingress_budget", words, [*labels, "reason"], budgets)


def _labels(ingress: Ingress) -> tuple[str, str, str]:
    return str(ingress.worker)[:8], ingress.model, ingress.region


class _Snapshot(Collector):
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
        yield from _counters(self._gauges.counts)


def _counters(counts: Mapping[str, int]) -> Iterator[CounterMetricFamily]:
    """What was counted in Postgres."""
    for name, words in COUNTED.items():
        label = LABELLED.get(name)
        family = CounterMetricFamily(f"penstock_{name}", words, labels=[label] if label else [])
        for key, count in counts.items():
            base, _, value = key.partition("/")
            if base == name:
                family.add_metric([value] if label else [], count)
        yield family


def _gauge(
    name: str, words: str, labels: list[str], values: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"penstock_{name}", words, labels=labels)
    for key, value in values:
        family.add_metric(list(key), value)
    return family


_TEXT: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


@router.get(
    "/metrics", response_class=Response, responses=_TEXT, summary="Prometheus metrics of this process and of the queue"
)
async def metrics(request: Request, here: Here) -> Response:
    """Text in the Prometheus format: requests, backlog by model, lane and state, live workers, leases, hints."""
    _allow(request, here.settings)
    try:
        gauges = await here.db.autocommit(health.gauges, here.settings)
    except Unavailable:
        gauges = None
    now = CollectorRegistry()
    now.register(_Snapshot(gauges))
    now.register(_Ingresses(here.directory))
    return Response(generate_latest(REGISTRY) + generate_latest(now), media_type=CONTENT_TYPE_LATEST)


def _allow(request: Request, settings: ServerSettings) -> None:
    if settings.metrics_open:
        return
    if not settings.metrics_secret:
        raise Forbidden("Metrics need PENSTOCK_METRICS_TOKEN, or PENSTOCK_METRICS_OPEN=true.")
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not settings.metrics_secret.accepts(given.encode()):
        raise Unauthorized("Send PENSTOCK_METRICS_TOKEN as 'Authorization: Bearer <token>'.")
