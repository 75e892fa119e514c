"""Models: names that the platform knows; a batch that names another one fails."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from penstock.domain.api_errors import BadRequest, NotFound
from penstock.domain.calls.ingress import Slo
from penstock.domain.ensembles.ensemble import Ensemble
from penstock.domain.fleet.model import Model
from penstock.domain.models.name import check_name
from penstock.service.core import audit
from penstock.service.core.transaction import Transaction
from penstock.service.ensembles import ensembles
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
    """All known models by name, and behind them all ensembles, each with what its members have in common."""
    found = models.page(tx.conn, gone=timedelta(seconds=settings.worker_gone_seconds))
    of_name = {one.name: one for one in found}
    return [*found, *(_as_model(one, of_name) for one in ensembles.page(tx))]


def _as_model(one: Ensemble, models: Mapping[str, Model]) -> Model:
    """As many live workers as the member has that has fewest: with none, that one's lines wait."""
    names = (member.model for member in one.definition.asked)
    found = [models.get(name) or models.get(name.rpartition("@")[0]) for name in names]
    members = [member for member in found if member is not None]
    return Model(
        one.name,
        "ensemble",
        one.created_at,
        None,
        None,
        min((member.workers for member in members), default=0),
        tuple(sorted({engine for member in members for engine in member.engines})),
        tuple(sorted({lack for member in members for lack in member.lacks})),
    )


def get(tx: Transaction, name: str, settings: DispatchSettings) -> Model:
    """One known model; raise NotFound."""
    for model in page(tx, settings):
        if model.name == name:
            return model
    raise NotFound("model", name, param="model", code="model_not_found")
