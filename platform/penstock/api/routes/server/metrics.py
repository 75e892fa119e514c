"""Metrics: what a Prometheus scrape sees of this process and of the platform's queue.

They count over all tenants, so they are the operator's: read with `PENSTOCK_METRICS_TOKEN` as a Bearer token. Where an
address comes from says nothing, since a proxy on the same machine is loopback too: an operator who wants them open says
so (`PENSTOCK_METRICS_OPEN`).
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from pydantic import BaseModel, Field

from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here
from penstock.api.routes.server.snapshot import ApiProcess, Ingresses, Snapshot, worker_labels
from penstock.domain.api_errors import Forbidden, Unauthorized, Unavailable
from penstock.service.admin import health
from penstock.settings.servers import ServerSettings

router = APIRouter(tags=["health"], responses=DOCUMENTED)


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
    now.register(Snapshot(gauges))
    now.register(Ingresses(here.directory))
    now.register(
        ApiProcess(await here.blob_readiness.good(), here.db.connections_in_use, here.settings.api_connections)
    )
    return Response(generate_latest(REGISTRY) + generate_latest(now), media_type=CONTENT_TYPE_LATEST)


class ScrapeTarget(BaseModel):
    """One address to scrape, in the form of Prometheus' HTTP service discovery."""

    targets: list[str] = Field(description="Host and port, of one process.", examples=[["10.0.0.7:8400"]])
    labels: dict[str, str] = Field(
        description="`role` (`api` or `worker`), a worker's `worker`, `model` and `region`, and where its page is.",
        examples=[{"role": "worker", "worker": "3f2a9c01", "__scheme__": "http", "__metrics_path__": "/metrics"}],
    )


@router.get("/metrics/targets", summary="What Prometheus scrapes: the API, and every worker that takes calls")
async def targets(request: Request, here: Here) -> list[ScrapeTarget]:
    """Prometheus' HTTP service discovery: this API under the address it was asked at, and each gpu worker's ingress."""
    _allow(request, here.settings)
    found = [_target(str(request.base_url), {"role": "api"})]
    for ingress in here.directory.ingresses:
        worker, model, region = worker_labels(ingress)
        found.append(_target(ingress.url, {"role": "worker", "worker": worker, "model": model, "region": region}))
    return found


def _target(url: str, labels: dict[str, str]) -> ScrapeTarget:
    parts = urlsplit(url)
    path = f"{parts.path.rstrip('/')}/metrics"
    return ScrapeTarget(targets=[parts.netloc], labels={**labels, "__scheme__": parts.scheme, "__metrics_path__": path})


def _allow(request: Request, settings: ServerSettings) -> None:
    if settings.metrics_open:
        return
    if not settings.metrics_secret:
        raise Forbidden("Metrics need PENSTOCK_METRICS_TOKEN, or PENSTOCK_METRICS_OPEN=true.")
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not settings.metrics_secret.accepts(given.encode()):
        raise Unauthorized("Send PENSTOCK_METRICS_TOKEN as 'Authorization: Bearer <token>'.")
