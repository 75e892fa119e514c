"""Call requests: a waiting call's body as one model's engine gets it, and what routing needs to know of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.domain.api_errors import BadRequest
from penstock.domain.calls import affinity
from penstock.domain.ensembles.ensemble import ChosenMember
from penstock.domain.models.registry import ModelTarget, Registry
from penstock.domain.reuse import CacheMode
from penstock.domain.work.rank import TIERS, Tier
from penstock.formats import canonical, engine_body
from penstock.formats.answers import call_answer
from penstock.formats.output import usage_of
from penstock.service.calls.call_tally import Party
from penstock.service.calls.poison import fingerprint
from penstock.service.calls.reuse import Choice, choice
from penstock.settings import Settings


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A call that was read and may be made."""

    id: str
    tenant: str
    api_key: str | None
    """The id of the key that asks, for whom it counts."""
    endpoint: str
    model: str
    """As it was asked."""
    target: ModelTarget
    """What that stands for."""
    body: bytes
    """As the engine gets it."""
    tier: Tier
    sequences: int
    """How many texts its engine works on at once for it."""
    stream: bool
    """The client asks for a stream."""
    says_tier: bool
    """The client named a tier, and reads in the answer which one it got."""
    key: bytes | None
    """What it shares with calls that should meet on one worker."""
    caller: bytes | None
    """What it shares with calls that should have one version: a session, or a user; None: it says none."""
    fingerprint: bytes
    deadline: float
    """On the event loop's clock."""
    cache: Choice
    lasting: bytes | None
    """The canonical request's fingerprint, if its answer may be kept; see formats/canonical.py."""
    chosen: ChosenMember | None = None
    """Of an ensemble: the member that it goes to."""
    began: float = 0.0
    """On the event loop's clock."""

    @property
    def named(self) -> str:
        """What `target` is resolved of: the model as it was asked, or the ensemble's member."""
        return self.chosen.model if self.chosen else self.model

    @property
    def said(self) -> dict[str, Any]:
        """What its answer says otherwise than its engine did: its tier, and its model as it was asked."""
        said = {"service_tier": self.tier.value} if self.says_tier and call_answer.has_tier(self.endpoint) else {}
        is_as_asked = self.model == self.target.name and self.target.adapter is None
        return said if is_as_asked else said | {"model": self.model}

    @property
    def head(self) -> tuple[tuple[str, str], ...]:
        """Headers that say which member of which ensemble answers; of streams nothing else does.

        Where answers are gathered, whoever gathers them says it.
        """
        return (ensemble_header(self.chosen.head),) if self.chosen and not self.chosen.gathers else ()

    @property
    def party(self) -> Party:
        """Whom it is counted for."""
        queue, adapter = self.target.queue, self.target.adapter
        return Party(
            self.tenant, self.api_key, queue, adapter.id if adapter else queue, self.target.version, self.chosen
        )

    @property
    def at_once(self) -> int:
        """How many models are asked at the same time."""
        return 1

    @property
    def queues(self) -> tuple[str, ...]:
        """Whose workers may be asked."""
        return (self.target.queue,)

    def saying(self, whole: bytes, outcome: str) -> bytes:
        """A whole answer as its client reads it; one that an ensemble routed also says how it was made."""
        said = self.said
        if self.chosen is not None and not self.chosen.gathers:
            seconds = asyncio.get_running_loop().time() - self.began
            tokens = usage_of(whole).total_tokens
            said["penstock"] = self.chosen.trace(outcome, tokens, 0.0 if outcome == "reused" else seconds)
        return call_answer.saying(whole, said) if said else whole


@dataclass(frozen=True, slots=True)
class CallRead:
    """A call that is to be read."""

    id: str
    tenant: str
    endpoint: str
    raw: bytes
    session: str | None
    deadline: float
    """On the event loop's clock."""
    cache: str | None
    """The header's word about the shared cache."""
    tenant_caches: bool
    api_key: str | None = None
    """The id of the key that asks; None: the platform does."""


def ensemble_header(told: Mapping[str, Any]) -> tuple[str, str]:
    """What a head says of how its answer was made."""
    return "x-penstock-ensemble", json.dumps(told, separators=(",", ":"))


def of_model(
    given: CallRead, raw: bytes, chosen: ChosenMember | None, registry: Registry, settings: Settings
) -> CallRequest:
    """Read a body as the model gets it that it names, or as a member of an ensemble does, whose params are in `raw`.

    Its target is not resolved yet. Raises BadRequest.
    """

    def name_of(asked: str) -> str:
        return registry.name_of(chosen.model if chosen else asked)

    try:
        call = engine_body.for_call(raw, given.endpoint, given.tenant, settings.isolate_prefix_caches, name_of)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    if not call.model:
        message = "Missing required parameter: 'model'."
        raise BadRequest(message, code="missing_required_parameter", param="model")
    tier = TIERS.get(call.tier or "auto")
    if tier is None:
        raise BadRequest(f"service_tier must be one of {', '.join(TIERS)}.", param="service_tier")
    cache = choice(given.cache, call.cache, given.tenant_caches)
    lasting = None if cache.mode is CacheMode.OFF or call.stream else canonical.fingerprint(given.endpoint, raw)
    named = chosen.model if chosen else call.model
    return CallRequest(
        id=given.id,
        tenant=given.tenant,
        api_key=given.api_key,
        endpoint=given.endpoint,
        model=call.model,
        target=ModelTarget(name_of(call.model), named, None),
        body=call.body,
        tier=tier,
        sequences=call.sequences,
        stream=call.stream,
        says_tier=call.tier is not None,
        key=affinity.key(given.tenant, named, given.session, call.user, call.prefix),
        caller=affinity.key(given.tenant, name_of(call.model), given.session, call.user, b""),
        fingerprint=fingerprint(given.tenant, given.endpoint, call.body),
        deadline=given.deadline,
        cache=cache,
        lasting=lasting,
        chosen=chosen,
    )
