"""Call requests: a waiting call's body, read once: what an engine gets of it, and what routing needs to know."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Final

from penstock.domain.api_errors import BadRequest
from penstock.domain.calls import affinity
from penstock.domain.ensembles.ensemble import ChosenMember
from penstock.domain.models.registry import ModelTarget, Registry
from penstock.domain.reuse import CacheMode
from penstock.domain.work.rank import TIERS, Tier
from penstock.formats import canonical, engine_body
from penstock.formats.answers import call_answer
from penstock.formats.output import usage_of
from penstock.service.calls.poison import fingerprint
from penstock.service.calls.reuse import Choice, choice
from penstock.service.ensembles.routing import Router, Unroutable
from penstock.settings import Settings

_LONG_BODY_BYTES: Final = 256 * 1024
"""Reading and hashing a longer body holds an event loop up for milliseconds: a thread does it."""


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A call that was read and may be made."""

    id: str
    tenant: str
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
        """Headers that say which member of which ensemble answers; of streams nothing else does."""
        return (("x-penstock-ensemble", json.dumps(self.chosen.head, separators=(",", ":"))),) if self.chosen else ()

    def saying(self, whole: bytes, outcome: str) -> bytes:
        """A whole answer as its client reads it; one of an ensemble also says how it was made."""
        said = self.said
        if self.chosen is not None:
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


async def read(given: CallRead, registry: Registry, settings: Settings) -> CallRequest:
    """Read a body; of an ensemble, as the member gets it that its rules say. Its target is not resolved yet.

    What takes milliseconds of an event loop, or may with somebody's pattern, a thread does. Raises BadRequest.
    """
    ensemble = registry.ensemble(engine_body.model_of(given.raw) or "") if registry.ensembles else None
    if len(given.raw) > _LONG_BODY_BYTES or (ensemble is not None and ensemble.definition.patterns):
        return await asyncio.to_thread(_read, given, registry, settings)
    return _read(given, registry, settings)


def _read(given: CallRead, registry: Registry, settings: Settings) -> CallRequest:
    chosen, raw = None, given.raw
    try:
        if registry.ensembles and (ensemble := registry.ensemble(engine_body.model_of(raw) or "")):
            routed = Router(settings.bytes_per_token).routed(ensemble, given.endpoint, raw)
            chosen, raw = routed.chosen, routed.body

        def name_of(asked: str) -> str:
            return registry.name_of(chosen.model if chosen else asked)

        call = engine_body.for_call(raw, given.endpoint, given.tenant, settings.isolate_prefix_caches, name_of)
    except ValueError as error:
        raise BadRequest(str(error)) from None
    except Unroutable as error:
        raise BadRequest(error.message, code=error.code) from None
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
        endpoint=given.endpoint,
        model=call.model,
        target=ModelTarget(name_of(call.model), named, None),
        body=call.body,
        tier=tier,
        sequences=call.sequences,
        says_tier=call.tier is not None,
        key=affinity.key(given.tenant, named, given.session, call.user, call.prefix),
        caller=affinity.key(given.tenant, name_of(call.model), given.session, call.user, b""),
        fingerprint=fingerprint(given.tenant, given.endpoint, call.body),
        deadline=given.deadline,
        cache=cache,
        lasting=lasting,
        chosen=chosen,
    )
