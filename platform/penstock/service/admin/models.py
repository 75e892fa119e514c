"""Models: names that the platform knows; a batch that names another one fails."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from penstock.domain.api_errors import BadRequest, NotFound
from penstock.domain.calls.ingress import Slo
from penstock.domain.fleet.model import Model
from penstock.domain.models.name import check_name
from penstock.service.core import audit
from penstock.service.core.transaction import Transaction
from penstock.settings.dispatch import DispatchSettings
from penstock.store.fleet import models

_MOST_PROMISED_MS: Final = 600_000


def add(tx: Transaction, name: str) -> bool:
    """Make a model known before a worker serves it; False if it was known already."""
    check_name(name)
    added = models.add(tx.conn, name, "added")
    if added:
        audit.record(tx, audit.NOBODY, "model.added", name)
    return added


def promise(tx: Transaction, name: str, *, ttft_p95_ms: int | None = None, itl_p95_ms: int | None = None) -> Slo:
    """Promise a model's waiting calls a time to first token and between tokens: 0 clears one, None leaves it.

    What is promised from now on; workers hear it in their next load report. Raises NotFound or BadRequest.
    """
    for param, ms in (("ttft_p95_ms", ttft_p95_ms), ("itl_p95_ms", itl_p95_ms)):
        if ms is not None and not 0 <= ms <= _MOST_PROMISED_MS:
            raise BadRequest(f"{param} is a number of milliseconds up to {_MOST_PROMISED_MS}.", param=param)
    slo = models.promise(tx.conn, name, ttft_p95_ms=ttft_p95_ms, itl_p95_ms=itl_p95_ms)
    if slo is None:
        raise NotFound("model", name, param="model", code="model_not_found")
    audit.record(tx, audit.NOBODY, "model.promised", name, ttft_p95_ms=slo.ttft_p95_ms, itl_p95_ms=slo.itl_p95_ms)
    return slo


def page(tx: Transaction, settings: DispatchSettings) -> list[Model]:
    """All known models by name."""
    return models.page(tx.conn, gone=timedelta(seconds=settings.worker_gone_seconds))


def get(tx: Transaction, name: str, settings: DispatchSettings) -> Model:
    """One known model; raise NotFound."""
    for model in page(tx, settings):
        if model.name == name:
            return model
    raise NotFound("model", name, param="model", code="model_not_found")
