"""Line models: which models the lines of a batch may name, why not the others, and what those ask that name none."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from penstock.domain.accounts.access import MOST_NAMED, allows, not_allowed, only_one, unknown
from penstock.domain.work.batch import Batch
from penstock.service.core.transaction import Transaction
from penstock.service.limits import budget
from penstock.store.fleet import models


class _Every(frozenset[str]):
    def __contains__(self, name: object) -> bool:
        return True


EVERY: Final[Collection[str]] = _Every()
"""Whatever a line names is known: which models there are is for a server to know."""


@dataclass(frozen=True)
class LineModels:
    """What is known of models before a file is read."""

    known: Collection[str]
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
            return "model_not_found", unknown(name, self._some_known, self.allowed)
        if name in self.unpriced:
            return budget.NO_PRICE, budget.no_price(name).message
        return None

    @cached_property
    def _some_known(self) -> list[str]:
        """Enough names to say which models there are: a file may have a million lines that name none of them."""
        return sorted(name for name in self.known if allows(self.allowed, name))[: MOST_NAMED + 1]


def of_batch(tx: Transaction, batch: Batch) -> LineModels:
    """What holds for the lines of a batch now."""
    known = models.every_name(tx.conn)
    allowed = None if batch.allowed_models is None else frozenset(batch.allowed_models)
    default = batch.default_model
    if default is None and batch.kind == "batch":  # a job says in its create what its requests leave out
        default = only_one(known, allowed)
    return LineModels(known, allowed, frozenset(budget.unpriced(tx, batch.tenant, known)), default)
