"""The wait queue: who waits at the gate in one rank, and who is next: fewest in flight, earliest deadline, first come.

Among a tenant's batch lines of one deadline, those of the first slice come first. Both heaps drop what has left when
it comes up, and are built anew before it outweighs the rest: each step costs the logarithm of those who wait, and
memory is theirs alone.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Final

from penstock.domain.work.rank import Rank

_SPARE: Final = 64


@dataclass(frozen=True, slots=True)
class Ticket:
    """Who asks to be admitted; the same one is given back."""

    rank: Rank
    tenant: str
    deadline: float = math.inf
    """When the answer is due, in unix seconds."""
    slice: int = 0
    """Of batch lines: a slice's lines all go before the next one's, so that neighbours in the plan stay neighbours."""
    sequences: int = 1
    """How many texts the engine works on at once for it."""
    tokens: int = 0
    """What the engine reads of it, by estimate."""


@dataclass(slots=True, eq=False)
class Waiter:
    """One who waits, and the future that says that the slot is his, and whether he goes ahead of his rank."""

    ticket: Ticket
    came: int
    admitted: asyncio.Future[bool]
    left: bool = False


@dataclass(slots=True)
class _Queue:
    """One tenant's waiters, by deadline, then slice, then first come."""

    turns: list[tuple[float, int, int, Waiter]] = field(default_factory=list)
    live: int = 0

    @property
    def head(self) -> tuple[float, int, int]:
        """The first one's deadline, slice and number; there is one."""
        while self.turns[0][3].left:
            heappop(self.turns)
        return self.turns[0][:3]

    def add(self, turn: Waiter) -> None:
        heappush(self.turns, (turn.ticket.deadline, turn.ticket.slice, turn.came, turn))
        self.live += 1

    def drop(self, turn: Waiter) -> None:
        turn.left = True
        self.live -= 1
        if len(self.turns) > 2 * self.live + _SPARE:
            self.turns = [entry for entry in self.turns if not entry[3].left]
            heapify(self.turns)


class WaitQueue:
    """Those of one rank. `held` says how many each tenant has in flight; whoever changes it calls `moved`."""

    def __init__(self, held: Mapping[str, int]) -> None:
        self._held = held
        self._queues: dict[str, _Queue] = {}
        # (held, deadline, slice, came, tenant) of each tenant's first, and entries that were true once.
        self._order: list[tuple[int, float, int, int, str]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, turn: Waiter) -> None:
        """Wait."""
        tenant = turn.ticket.tenant
        self._queues.setdefault(tenant, _Queue()).add(turn)
        self._count += 1
        self.moved(tenant)

    def drop(self, turn: Waiter) -> None:
        """Wait no longer; nothing happens if he left before."""
        if turn.left:
            return
        tenant = turn.ticket.tenant
        queue = self._queues[tenant]
        queue.drop(turn)
        self._count -= 1
        if not queue.live:
            del self._queues[tenant]
        self.moved(tenant)

    @property
    def next(self) -> Ticket:
        """Whose turn it is; there is one."""
        return self._queues[self.next_tenant].turns[0][3].ticket

    @property
    def next_tenant(self) -> str:
        """Whose tenant's turn it is; there is one."""
        while True:
            held, *head, tenant = self._order[0]
            queue = self._queues.get(tenant)
            if queue and self._held.get(tenant, 0) == held and queue.head == tuple(head):
                return tenant
            heappop(self._order)

    def pop(self) -> Waiter:
        """Take out who is next; there is one."""
        turn = self._queues[self.next_tenant].turns[0][3]
        self.drop(turn)
        return turn

    def moved(self, tenant: str) -> None:
        """A tenant's place has changed: what he has in flight, or his first waiter."""
        if tenant not in self._queues:
            return
        if len(self._order) > 2 * len(self._queues) + _SPARE:
            self._order = [self._place(name) for name in self._queues]
            heapify(self._order)
        else:
            heappush(self._order, self._place(tenant))

    def _place(self, tenant: str) -> tuple[int, float, int, int, str]:
        return self._held.get(tenant, 0), *self._queues[tenant].head, tenant
