"""Line models: which models the lines of a batch may name, why not the others, and what those ask that name none."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from penstock.domain.accounts.access import MOST_NAMED, allows, not_allowed, only_one, unknown
from penstock.domain.ensembles.ensemble import Ensemble
from penstock.domain.models.alias import place_of_batch
from penstock.domain.models.registry import ModelTarget, Registry, UnknownTarget
from penstock.domain.work.batch import Batch
from penstock.service.core.transaction import Transaction
from penstock.service.limits import budget
from penstock.service.models import registry
from penstock.service.models.pins import LineModel


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
    registry: Registry | None = None
    """What the names stand for; None: each for itself."""
    batch: str = ""
    """Whose lines they are: it stands at one place of each alias."""
    _found: dict[str, ModelTarget] = field(default_factory=dict)

    def ensemble(self, asked: str) -> Ensemble | None:
        """The ensemble that a line names, if it names one that it may."""
        return self.registry.ensemble(asked) if self.registry and allows(self.allowed, asked) else None

    def fault(self, line: LineModel) -> tuple[str, str] | None:
        """Code and message for a line that names a model which it may not; None if it may.

        Who may ask an ensemble needs no right to its members.
        """
        if not allows(self.allowed, line.asked):
            return "model_not_allowed", not_allowed(line.asked)
        return next((fault for name in line.names if (fault := self._fault(line.asked, name))), None)

    def _fault(self, asked: str, name: str) -> tuple[str, str] | None:
        if (name if self.registry is None else self.registry.name_of(name)) not in self.known:
            return "model_not_found", unknown(asked, self._some_known, self.allowed)
        try:
            target = self.target(name)
        except UnknownTarget as error:
            return error.code, error.message
        if target.queue in self.unpriced:
            return budget.NO_PRICE, budget.no_price(asked).message
        return None

    def target(self, asked: str) -> ModelTarget:
        """What a name (a member's, not an ensemble's) stands for in this batch; raises UnknownTarget."""
        found = self._found.get(asked)
        if found is None:
            found = self._found[asked] = self._resolve(asked)
        return found

    def _resolve(self, asked: str) -> ModelTarget:
        if self.registry is None:
            return ModelTarget(asked, asked, None)
        return self.registry.resolve(asked, place_of_batch(self.batch, self.registry.name_of(asked)))

    @cached_property
    def _some_known(self) -> list[str]:
        """Enough names to say which models there are: a file may have a million lines that name none of them."""
        named = (*self.known, *(self.registry.ensembles if self.registry else ()))
        return sorted(name for name in named if allows(self.allowed, name))[: MOST_NAMED + 1]


def of_batch(tx: Transaction, batch: Batch) -> LineModels:
    """What holds for the lines of a batch now."""
    names = registry.read(tx)
    known = names.names
    allowed = None if batch.allowed_models is None else frozenset(batch.allowed_models)
    default = batch.default_model
    if default is None and batch.kind == "batch":  # a job says in its create what its requests leave out
        default = only_one(known, allowed)
    queues = names.queues
    return LineModels(known, allowed, frozenset(budget.unpriced(tx, batch.tenant, queues)), default, names, batch.id)
