"""A waiting call at the ingress: what its head says, and why the ingress itself may refuse it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import unquote

from aiohttp import web

from penstock.domain.work.rank import OF_TIER, Rank, Tier

_MOST_NAME_CHARACTERS: Final = 200


class Refusal(StrEnum):
    """Why no engine's bytes come. All but the last three mean: not taken, offer it elsewhere."""

    FULL = "full"
    """As many calls are inside as may be."""
    SHARE = "share"
    """As many of this tenant's are inside as may be; another's would come in."""
    CLOSED = "closed"
    """Suspects are tried, which may cost this engine its life."""
    DRAINING = "draining"
    """The worker ends, is drained, or is about to restart its engine."""
    NOT_READY = "not-ready"
    """The engine is not up."""
    LIMITED = "limited"
    """The engine turned it away, or would: it has enough for now."""
    WAITED = "waited"
    """The engine had no slot, or no answer, for as long as a call may wait."""
    ENGINE_DIED = "engine-died"
    """The engine died with this call in it, before the first byte."""
    UNANSWERED = "unanswered"
    """The engine lives, but its connection broke before the first byte."""


class Refused(Exception):
    """The ingress's own answer, in place of the engine's."""

    def __init__(self, refusal: Refusal, *, suspects: bool = False, retry_after_seconds: float | None = None) -> None:
        super().__init__(refusal)
        self.refusal = refusal
        self.suspects = suspects
        self.retry_after_seconds = retry_after_seconds


@dataclass(eq=False, slots=True)
class Call:
    """One call inside, or about to be."""

    id: str
    endpoint: str
    tenant: str
    rank: Rank
    sequences: int
    """How many texts the engine works on at once for it."""
    last_resort: bool
    """No other worker lives: it comes in although suspects are tried, and waits."""
    adapter: str | None = None
    """The adapter that it asks, by its id."""
    task: asyncio.Task[object] | None = None
    came_at: float = field(default_factory=time.monotonic)
    waiting: asyncio.Timeout | None = None
    """Set while it waits at the gate."""
    away: Refusal = Refusal.WAITED
    """Why it waits no longer, if its wait is ended."""
    began: bool = False
    """Its caller has some of the answer's bytes."""
    cut: bool = False
    """The worker's grace is over."""
    queue_seconds: float = 0.0

    def turn_away(self, why: Refusal) -> None:
        """Let it wait at the gate no longer."""
        if self.waiting is not None and not self.waiting.expired():
            self.away = why
            self.waiting.reschedule(asyncio.get_running_loop().time())

    @classmethod
    def of(cls, endpoint: str, headers: Mapping[str, str]) -> Call:
        """Read a call's head. Raises ValueError."""
        id, tenant = headers.get("x-penstock-call", ""), headers.get("x-penstock-tenant", "")
        if not (0 < len(id) <= _MOST_NAME_CHARACTERS and 0 < len(tenant) <= _MOST_NAME_CHARACTERS):
            raise ValueError("x-penstock-call and x-penstock-tenant are needed.")
        rank = OF_TIER[Tier(headers.get("x-penstock-tier", Tier.DEFAULT))]
        sequences = int(headers.get("x-penstock-sequences", "1"))
        last_resort = headers.get("x-penstock-last-resort") == "1"
        adapter = unquote(headers.get("x-penstock-adapter", "")) or None
        return cls(id, endpoint, tenant, rank, sequences, last_resort, adapter)


def refuse(refused: Refused) -> web.Response:
    """The ingress's refusal as an answer."""
    headers = {"x-penstock-refusal": str(refused.refusal)}
    if refused.suspects:
        headers["x-penstock-suspects"] = "1"
    if refused.retry_after_seconds is not None:
        headers["retry-after"] = str(max(1, math.ceil(refused.retry_after_seconds)))
    return web.Response(status=503, headers=headers)
