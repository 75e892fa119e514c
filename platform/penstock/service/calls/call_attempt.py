"""A call attempt: one call at one ingress, and what became of it.

NotTaken    no answer came from this worker; the reason says whether another may be asked
Broken      the answer broke off, and some of it is with the client
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote
from uuid import UUID

from penstock.domain.calls.ingress import Ingress
from penstock.domain.work.rank import Tier
from penstock.formats.answers.call_answer import MOST_HELD_BYTES
from penstock.service.calls.poison import Flight, Poison
from penstock.service.calls.worker_directory import WorkerDirectory
from penstock.wire.ingress_client import IngressClient, IngressLost, IngressReply, IngressUnreachable

# Refusals that hold for other calls too, until the worker says otherwise.
_SHUT: Final = frozenset({"full", "closed", "draining", "not-ready"})
DEATHS: Final = frozenset({"engine-died", "worker-lost"})


class NotTaken(Exception):
    """No answer came: an ingress's own reason, or `unreachable`, `worker-lost`."""

    def __init__(self, reason: str, retry_after_seconds: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class Broken(Exception):
    """The answer broke off: `engine-died`, `worker-lost`, or `unanswered` where only the connection broke."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class CallHead:
    """What an ingress is told of a call beside its body."""

    tenant: str
    tier: Tier
    sequences: int
    last_resort: bool
    """No other worker lives: let it in although suspects are tried."""
    adapter: str | None = None
    """The adapter that it asks, by its id."""

    def headers(self, call_id: str) -> dict[str, str]:
        """As HTTP headers."""
        told = {
            "x-penstock-call": call_id,
            "x-penstock-tenant": self.tenant,
            "x-penstock-tier": self.tier.value,
            "x-penstock-sequences": str(self.sequences),
        }
        told |= {"x-penstock-adapter": quote(self.adapter, safe="@/")} if self.adapter else {}
        return told | ({"x-penstock-last-resort": "1"} if self.last_resort else {})


class CallAttempt:
    """A call that is with one worker, from `send` to `end`. Whoever made one ends it."""

    def __init__(
        self,
        client: IngressClient,
        directory: WorkerDirectory,
        poison: Poison,
        ingress: Ingress,
        call_id: str,
        fingerprint: bytes,
    ) -> None:
        self._client = client
        self._directory = directory
        self._poison = poison
        self._ingress = ingress
        self._call_id = call_id
        self._fingerprint = fingerprint
        self._reply: IngressReply | None = None
        self._answered = False
        self._sent_at = 0.0
        self._flight: Flight | None = None

    @property
    def revision(self) -> str:
        """What makes its engine's answers its own."""
        return self._ingress.revision

    @property
    def worker(self) -> UUID:
        """Who was asked."""
        return self._ingress.worker

    @property
    def reply(self) -> IngressReply:
        """The engine's answer, once `send` has returned."""
        assert self._reply is not None, "it was sent"
        return self._reply

    async def send(self, endpoint: str, body: bytes, head: CallHead) -> None:
        """Send the call, and return when the engine's answer begins. Raises NotTaken, and EngineCrash."""
        self._flight = self._poison.depart(self._fingerprint, self.worker)
        self._sent_at = self._directory.sent(self.worker)
        try:
            reply = self._reply = await self._client.offer(
                self._ingress.url, endpoint, body, head.headers(self._call_id)
            )
        except IngressUnreachable:
            self._directory.failed(self.worker, self._sent_at)
            raise NotTaken("unreachable") from None
        except IngressLost:
            raise NotTaken(await self._ask_why()) from None
        if reply.refusal is not None:
            await self._refused(reply, reply.refusal)
        if "x-penstock-worker" not in reply.headers:
            # Not an ingress, or one with another token.
            self._directory.failed(self.worker, self._sent_at)
            raise NotTaken("unreachable")
        self._directory.worked(self.worker)

    async def _refused(self, reply: IngressReply, reason: str) -> None:
        if reason in _SHUT:
            self._directory.shut(self.worker)
        elif reason == "engine-died":
            await self._died(reply.suspects)
        after = reply.headers.get("retry-after", "")
        raise NotTaken(reason, int(after) if after.isdecimal() else None)

    async def first(self) -> bytes:
        """The first bytes of the answer; nothing of it is with the client yet. Raises NotTaken, and EngineCrash."""
        try:
            return await self._next()
        except IngressLost:
            raise NotTaken(await self._ask_why()) from None

    async def more(self) -> bytes:
        """Further bytes, empty at the end. Raises Broken, and EngineCrash."""
        try:
            return await self._next()
        except IngressLost:
            why = await self._ask_why()
            raise Broken("worker-lost" if why == "unreachable" else why) from None

    async def rest_after_error(self) -> bytes:
        """The rest of a stream in which the engine told of an error: an engine that dies may still say goodbye.

        Raises Broken if it has died, and EngineCrash.
        """
        rest = bytearray()
        while (piece := await self.more()) and len(rest) < MOST_HELD_BYTES:
            rest += piece
        why = await self._ask_why()
        if why in DEATHS:
            raise Broken(why)
        return bytes(rest)

    async def _next(self) -> bytes:
        piece = await self.reply.piece()
        if not piece:
            self._answered = True
        return piece

    async def _ask_why(self) -> str:
        """The connection broke: ask the ingress why. One that can't be asked is gone, and its engine with it."""
        try:
            told = await self._client.outcome(self._ingress.url, self._call_id)
        except (IngressUnreachable, IngressLost):
            await self._died(suspects=False)
            return "worker-lost"
        if told.outcome == "engine-died":
            await self._died(told.suspects)
            return "engine-died"
        # It never came in there; or it did, and only the connection between us broke.
        return "unreachable" if told.outcome == "unknown" else "unanswered"

    async def _died(self, suspects: bool) -> None:
        assert self._flight is not None, "it was sent, and has not ended"
        if self._flight.noting is None:
            self._directory.failed(self.worker, self._sent_at)  # once, however many equal calls were inside
        if not suspects:
            await self._poison.died(self._fingerprint, self._flight)

    def end(self) -> None:
        """Let go; a worker that still answers hears that nobody listens any more. Safe to repeat, and before `send`."""
        if self._flight is None:
            return
        if self._reply is not None:
            self._reply.close()
        self._directory.ended(self.worker)
        self._poison.arrive(self._fingerprint, self._flight, answered=self._answered)
        self._flight = None
