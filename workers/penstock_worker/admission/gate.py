"""The gate: how many requests may be in the engine, who may be there, and who is next.

It lives on one asyncio loop and needs no lock. What holds after every step: a free slot and a waiter who may have it
never exist together, for whoever frees a slot hands it on at once. So an admission that finds a slot which it may take
needn't look at anyone else, and takes it without suspension.

    waiting calls   (realtime ranks) while the engine has a slot at all
    batch lines     (the others, flex calls included) while fewer than `budget` of them are in flight and the engine
                    has more slots free than are kept for waiting calls
    the least       `least_lines(n)` of those may use any slot, so that steady calls don't end all batch work
    overtakers      while the budget is whole, a batch line may pass those that go behind it and enter beyond it: less
                    urgent lanes, and in its own lane tenants who hold more than an equal share; there is a number of
                    slots for that, which calls don't need, and nobody else enters until all are within the budget again

Waiters go by rank, then the tenant with the fewest in flight (calls and batch lines counted apart), then the earliest
deadline, then the first slice, then first come. `alone` empties the engine for one who tries suspects: meanwhile
everybody waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import IntEnum

from penstock.domain.work.rank import Rank
from penstock_worker.admission.wait_queue import Ticket, Waiter, WaitQueue

__all__ = ["Gate", "Ticket", "least_lines"]


def least_lines(most_lines: int) -> int:
    """The batch lines that may be in the engine whatever happens: a sixteenth, and one at least."""
    return max(1, most_lines // 16)


class _Entry(IntEnum):
    """Whether somebody may enter; true but for `NO`."""

    NO = 0
    YES = 1
    AHEAD = 2
    """Beyond the budget, since others of his own lane hold more than an equal share."""


class _Group:
    """Waiting calls, or batch lines: how many are in flight, and how many of each tenant."""

    def __init__(self, ranks: tuple[Rank, ...]) -> None:
        self.ranks = ranks
        self.in_flight = 0
        self.by_tenant: dict[str, int] = {}
        self._busy_seconds = 0.0
        self._busy_since: float | None = None

    @property
    def busy_seconds(self) -> float:
        """How long any was in flight, all such times together; may be read from any thread."""
        since = self._busy_since
        return self._busy_seconds + (0.0 if since is None else time.monotonic() - since)

    def enter(self) -> None:
        """One more is in flight."""
        if not self.in_flight:
            self._busy_since = time.monotonic()
        self.in_flight += 1

    def leave(self) -> None:
        """One less."""
        self.in_flight -= 1
        if not self.in_flight and (since := self._busy_since) is not None:
            self._busy_since = None  # first: who reads meanwhile sees too little once, never time that was not
            self._busy_seconds += time.monotonic() - since


class Gate:
    """The slots of one engine. `budget` can change at any time: fewer take effect as lines come back."""

    def __init__(self, budget: int, slots: int | None = None, overtakers: int = 0) -> None:
        self._budget = self._most_lines = budget
        self._slots = budget if slots is None else max(slots, budget)
        self._most_with_overtakers = min(budget + overtakers, self._slots)
        self._least_lines = least_lines(budget)
        self._calls = _Group(tuple(rank for rank in Rank if rank.is_realtime))
        self._lines = _Group(tuple(rank for rank in Rank if not rank.is_realtime))
        self._groups = tuple(self._calls if rank.is_realtime else self._lines for rank in Rank)
        self._held = [0] * len(Rank)
        self._waiters = tuple(WaitQueue(group.by_tenant) for group in self._groups)
        self._in_order = tuple(zip(Rank, self._waiters, strict=True))
        self._came = 0
        self._shut = False
        self._trials = asyncio.Lock()
        self.on_call: Callable[[], None] = lambda: None
        """Told of each waiting call of a realtime rank before it is admitted or waits."""
        self._empty: asyncio.Future[None] | None = None

    @property
    def budget(self) -> int:
        """How many batch lines may be in flight."""
        return self._budget

    @budget.setter
    def budget(self, lines: int) -> None:
        self._budget = lines
        self._hand_out()

    @property
    def most_lines(self) -> int:
        """n: the budget at first; batch lines never leave fewer slots than the rest free."""
        return self._most_lines

    @property
    def slots(self) -> int:
        """What the engine runs at once, the room for waiting calls included."""
        return self._slots

    @property
    def calls(self) -> int:
        """Waiting calls of realtime ranks that hold a slot."""
        return self._calls.in_flight

    @property
    def lines(self) -> int:
        """Batch lines and flex calls that hold a slot."""
        return self._lines.in_flight

    @property
    def lines_busy_seconds(self) -> float:
        """How long any batch line was in flight, since the gate was made; may be read from any thread."""
        return self._lines.busy_seconds

    @property
    def in_flight(self) -> int:
        """All that hold a slot, those that were just handed one included."""
        return self._calls.in_flight + self._lines.in_flight

    @property
    def trying(self) -> bool:
        """True while somebody has the engine to himself, or waits until it is empty for that."""
        return self._shut

    def held(self, rank: Rank) -> int:
        """How many of a rank hold a slot."""
        return self._held[rank]

    def waiting(self, rank: Rank) -> int:
        """How many of a rank wait for a slot."""
        return len(self._waiters[rank])

    async def admit(self, ticket: Ticket) -> bool:
        """Take a slot, waiting for one if need be; give it back with `release`. A cancelled admission holds none.

        True says that he goes ahead of those of his own rank in the engine, too.
        """
        if ticket.rank.is_realtime:
            self.on_call()
        if entry := self._entry(ticket.rank, ticket.tenant):
            self._take(ticket)
            return entry is _Entry.AHEAD
        self._came += 1
        turn = Waiter(ticket, self._came, asyncio.get_running_loop().create_future())
        waiters = self._waiters[ticket.rank]
        waiters.add(turn)
        try:
            return await turn.admitted
        except asyncio.CancelledError:
            if turn.admitted.done() and not turn.admitted.cancelled():
                self.release(ticket)  # The slot came in the same moment as the cancellation.
            else:
                waiters.drop(turn)
            raise

    def release(self, ticket: Ticket) -> None:
        """Give a slot back, to the next in line if one waits."""
        group, tenant = self._groups[ticket.rank], ticket.tenant
        held = group.by_tenant.get(tenant, 0)
        if not held or not self._held[ticket.rank]:
            raise RuntimeError(f"no {ticket.rank.name} of {tenant} holds a slot")
        if held == 1:
            del group.by_tenant[tenant]
        else:
            group.by_tenant[tenant] = held - 1
        group.leave()
        self._held[ticket.rank] -= 1
        self._moved(group, tenant)
        self._hand_out()
        if self._empty and not self.in_flight and not self._empty.done():
            self._empty.set_result(None)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Have the engine to oneself: nobody is admitted, and what was in flight has come back. One after the other."""
        async with self._trials:
            self._shut = True
            try:
                if self.in_flight:
                    self._empty = asyncio.get_running_loop().create_future()
                    await self._empty
                yield
            finally:
                self._shut = False
                self._hand_out()

    def _entry(self, rank: Rank, tenant: str) -> _Entry:
        """Whether a slot is free for him. Calls come first by the order in which slots are handed out."""
        in_flight = self._calls.in_flight + self._lines.in_flight
        if self._shut or in_flight >= self._slots:
            return _Entry.NO
        if self._groups[rank] is self._calls:
            return _Entry.YES
        lines = self._lines.in_flight
        if lines < self._budget and (in_flight < self._most_lines or lines < self._least_lines):
            return _Entry.YES
        if in_flight >= self._most_with_overtakers or self._budget < self._most_lines:
            return _Entry.NO
        return self._overtakes(rank, tenant)

    def _overtakes(self, rank: Rank, tenant: str) -> _Entry:
        """Whether a line needn't wait for those who fill the budget: some of them go behind it."""
        left = self._budget - sum(self._held[first] for first in self._lines.ranks if first < rank)
        if self._held[rank] < left:
            return _Entry.YES
        holders = self._lines.by_tenant
        mine = holders.get(tenant, 0)
        return _Entry.AHEAD if mine < left // (len(holders) + (not mine)) else _Entry.NO

    def _take(self, ticket: Ticket) -> None:
        group, tenant = self._groups[ticket.rank], ticket.tenant
        group.enter()
        group.by_tenant[tenant] = group.by_tenant.get(tenant, 0) + 1
        self._held[ticket.rank] += 1
        self._moved(group, tenant)

    def _moved(self, group: _Group, tenant: str) -> None:
        for rank in group.ranks:
            if waiters := self._waiters[rank]:
                waiters.moved(tenant)

    def _hand_out(self) -> None:
        for rank, waiters in self._in_order:
            while waiters and (entry := self._entry(rank, waiters.next_tenant)):
                turn = waiters.pop()
                if not turn.admitted.done():  # It is done if its task was cancelled but has not run since.
                    self._take(turn.ticket)
                    turn.admitted.set_result(entry is _Entry.AHEAD)
