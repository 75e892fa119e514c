"""Gathered requests: a waiting call to an ensemble whose answer may take several members': each gets its own body."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from penstock.domain.api_errors import BadRequest
from penstock.domain.ensembles.ensemble import Ensemble
from penstock.domain.models.registry import ModelTarget, Registry
from penstock.domain.work.rank import Tier
from penstock.formats.routed_request import asks_logprobs
from penstock.service.calls import call_request
from penstock.service.calls.call_request import CallRead, CallRequest
from penstock.service.ensembles import askable, classifying
from penstock.settings import Settings


@dataclass(frozen=True, slots=True)
class GatheredRequest:
    """A call that was read and may be made, of one version of an ensemble, whatever becomes of that meanwhile."""

    ensemble: Ensemble
    first: CallRequest
    """As the first member gets it."""
    targets: tuple[ModelTarget, ...]
    """What the members stand for."""
    began: float
    """On the event loop's clock."""
    given: CallRead
    registry: Registry
    settings: Settings

    @property
    def model(self) -> str:
        """As it was asked."""
        return self.first.model

    @property
    def tier(self) -> Tier:
        """Of each member's call."""
        return self.first.tier

    @property
    def endpoint(self) -> str:
        """What is asked of each member."""
        return self.first.endpoint

    @property
    def deadline(self) -> float:
        """Of the answer; on the event loop's clock."""
        return self.first.deadline

    @property
    def at_once(self) -> int:
        """How many members are asked at the same time."""
        return len(self.ensemble.definition.first)

    @property
    def sequences(self) -> int:
        """How many texts engines work on at once for it."""
        return self.first.sequences * self.at_once

    @property
    def queues(self) -> tuple[str, ...]:
        """Whose workers may be asked."""
        return tuple(target.queue for target in self.targets)

    @property
    def keeps_logprobs(self) -> bool:
        """Whether its client asked for them, and not only its ensemble."""
        return asks_logprobs(self.given.raw)

    @property
    def told(self) -> dict[str, Any]:
        """What is known of its answer before there is one."""
        kind, name = self.ensemble.definition.kind, self.ensemble.name
        return {"ensemble": name, "version": self.ensemble.label, "kind": kind.value}

    @property
    def head(self) -> tuple[tuple[str, str], ...]:
        """The same as a header."""
        return (call_request.ensemble_header(self.told),)

    @property
    def party(self) -> None:
        """Each member is counted for itself."""

    def aimed(self, targets: tuple[ModelTarget, ...], began: float) -> GatheredRequest:
        """The same, once it is known what its members stand for."""
        return replace(self, targets=targets, began=began)

    def member(self, place: int, question: bytes | None = None) -> CallRequest:
        """The call of one member, as if its client had asked that one; or of the judge, with its question.

        A body of a megabyte takes milliseconds.
        """
        given = self.given if question is None else replace(self.given, raw=question)
        asked = self.first if place == 0 else _member(given, self.ensemble, place, self.registry, self.settings)
        return replace(asked, id=f"{asked.id}-m{place + 1}", target=self.targets[place])


def read(given: CallRead, ensemble: Ensemble, registry: Registry, settings: Settings) -> GatheredRequest:
    """Read a body for an ensemble that gathers. Raises BadRequest, also for what it can't answer."""
    first = _member(given, ensemble, 0, registry, settings)
    if fault := askable.fault(ensemble.definition, given.endpoint, given.raw, stream=first.stream):
        raise BadRequest(fault[1], code=fault[0])
    return GatheredRequest(ensemble, first, (), 0.0, given, registry, settings)


def _member(given: CallRead, ensemble: Ensemble, place: int, registry: Registry, settings: Settings) -> CallRequest:
    chosen = ensemble.chosen(ensemble.definition.asked[place])
    raw = classifying.asked(chosen, given.endpoint, given.raw)
    return call_request.of_model(given, raw, chosen, registry, settings)
