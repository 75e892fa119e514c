"""Line models: which models the lines of a batch may name, why not the others, and what those ask that name none."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.domain.accounts.access import allows, not_allowed, only_one
from penstock.domain.work.batch import Batch
from penstock.service.core.transaction import Transaction
from penstock.service.limits import budget
from penstock.store.fleet import models


@dataclass(frozen=True)
class LineModels:
    """What is known of models before a file is read."""

    known: frozenset[str]
    """What was added, or was ever registered by a worker."""
    allowed: frozenset[str] | None = None
    """What the key that made the batch may ask; None: every model."""
    unpriced: frozenset[str] = frozenset()
    """Known ones that its tenant may not ask, since it has a budget and they have no price."""

    default: str | None = None
    """What lines ask that name no model; None: they must."""

    def fault(self, name: str) -> tuple[str, str] | None:
        """Code and message for a line that names a model which it may not; None if it may."""
        if not allows(self.allowed, name):
            return "model_not_allowed", not_allowed(name)
        if name not in self.known:
            return "model_not_found", f"The model {name!r} does not exist."
        if name in self.unpriced:
            return budget.NO_PRICE, budget.no_price(name).message
        return None


def of_batch(tx: Transaction, batch: Batch) -> LineModels:
    """What holds for the lines of a batch now."""
    known = models.every_name(tx.conn)
    allowed = None if batch.allowed_models is None else frozenset(batch.allowed_models)
    default = batch.default_model
    if default is None and batch.kind == "batch":  # a job says in its create what its requests leave out
        default = only_one(known, allowed)
    return LineModels(known, allowed, frozenset(budget.unpriced(tx, batch.tenant, known)), default)
