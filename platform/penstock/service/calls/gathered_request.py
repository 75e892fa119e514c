"""Gathered requests: a waiting call to an ensemble whose answer may take several members': each gets its own body."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from penstock.domain.api_errors import BadRequest
from penstock.domain.ensembles.ensemble import Ensemble
from penstock.domain.models.registry import ModelTarget, Registry
from penstock.domain.work.rank import Tier
from penstock.formats.routed_request import asks_logprobs
from penstock.formats.stream_request import wants_usage, with_stream, without_stream
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
    streams: bool = False
    """Its client asks for a stream, and its members are asked for whole texts; see `member` of the last stage."""
    wants_usage: bool = False
    """Its stream says its usage at the end."""

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
        """What is asked of each member; a classifier may have one of its own."""
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

    def member(self, place: int, question: bytes | None = None, *, live: bool = False) -> CallRequest:
        """The call of one member, as if its client had asked that one; or of the judge, with its question.

        `live`: its answer is the ensemble's, whatever it says, and comes as a stream. A body of a megabyte takes
        milliseconds.
        """
        raw = self.given.raw if question is None else question
        given = replace(self.given, raw=with_stream(raw, self.endpoint) if live else raw)
        first = place == 0 and not live
        asked = self.first if first else _member(given, self.ensemble, place, self.registry, self.settings, live)
        return replace(asked, id=f"{asked.id}-m{place + 1}", target=self.targets[place])


def read(given: CallRead, ensemble: Ensemble, registry: Registry, settings: Settings) -> GatheredRequest:
    """Read a body for an ensemble that gathers. Raises BadRequest, also for what it can't answer."""
    first = _member(given, ensemble, 0, registry, settings)
    if fault := askable.fault(ensemble.definition, given.endpoint, given.raw):
        raise BadRequest(fault[1], code=fault[0])
    if not (first.stream and askable.reads_texts(ensemble.definition)):
        return GatheredRequest(ensemble, first, (), 0.0, given, registry, settings)
    wanted = wants_usage(given.raw)
    given = replace(given, raw=without_stream(given.raw))
    first = _member(given, ensemble, 0, registry, settings)
    return GatheredRequest(ensemble, first, (), 0.0, given, registry, settings, streams=True, wants_usage=wanted)


def _member(
    given: CallRead, ensemble: Ensemble, place: int, registry: Registry, settings: Settings, live: bool = False
) -> CallRequest:
    member = ensemble.definition.asked[place]
    chosen = ensemble.chosen(member)
    if live:  # nobody asks how sure an answer is that is taken in any case
        chosen = replace(chosen, params=member.params)
    raw = classifying.asked(chosen, given.endpoint, given.raw)
    given = replace(given, endpoint=chosen.endpoint(given.endpoint))
    return call_request.of_model(given, raw, chosen, registry, settings)
