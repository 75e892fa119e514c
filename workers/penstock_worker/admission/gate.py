"""The gate: how many requests may be in the engine, who may be there, and who is next.

A slot is for one sequence. Who asks for many (`Ticket.sequences`: choices, lists of prompts) takes as many slots, half
of all at most, and comes in once as many are free.

It lives on one asyncio loop and needs no lock. What holds after every step: a free slot and a waiter who may have it
never exist together, for whoever frees a slot hands it on at once. So an admission that finds a slot which it may take
needn't look at anyone else, and takes it without suspension.

    waiting calls   (realtime ranks) while the engine has a slot at all, of which the last few are for tenants who hold
                    less than an equal share (domain/limits/equal_share.py)
    batch lines     (the others, flex calls included) while fewer than `budget` of them are in flight and the engine
                    has more slots free than are kept for waiting calls
    the least       `least_lines(n)` of those may use any slot, so that steady calls don't end all batch work
    refill          while calls are present lines enter a few at a time, however many ended together: see
                    refill.py; a line that finds others waiting for that goes behind them
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

from penstock.domain.limits.equal_share import may_take
from penstock.domain.work.rank import Rank
from penstock_worker.admission.refill import Refill
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

    def enter(self, size: int) -> None:
        """So many more are in flight."""
        if not self.in_flight:
            self._busy_since = time.monotonic()
        self.in_flight += size

    def leave(self, size: int) -> None:
        """So many less."""
        self.in_flight -= size
        if not self.in_flight and (since := self._busy_since) is not None:
            self._busy_since = None  # first: who reads meanwhile sees too little once, never time that was not
            self._busy_seconds += time.monotonic() - since


class Gate:
    """The slots of one engine. `budget` can change at any time: fewer take effect as lines come back."""

    def __init__(
        self, budget: int, slots: int | None = None, overtakers: int = 0, refill: Refill | None = None
    ) -> None:
        """`refill`: what holds lines back while calls are present; without one nothing does."""
        self._budget = self._most_lines = budget
        self._slots = budget if slots is None else max(slots, budget)
        self._most_with_overtakers = min(budget + overtakers, self._slots)
        self._least_lines = least_lines(budget)
        self._calls = _Group(tuple(rank for rank in Rank if rank.is_realtime))
        self._lines = _Group(tuple(rank for rank in Rank if not rank.is_realtime))
        self._groups = tuple(self._calls if rank.is_realtime else self._lines for rank in Rank)
        self._held = [0] * len(Rank)
        self._waiters = tuple(WaitQueue(group.by_tenant) for group in self._groups)
        self._came = 0
        self._shut = self._lines_held = False
        self.refill = refill
        if refill:
            refill.busy_seconds = lambda: self._lines.busy_seconds
        self._refilling: asyncio.TimerHandle | None = None
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
    def lines_held(self) -> bool:
        """Whether no batch line may enter for now: the engine has enough. Waiting calls may."""
        return self._lines_held

    @lines_held.setter
    def lines_held(self, held: bool) -> None:
        self._lines_held = held
        if not held:
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
            if self.refill:
                self.refill.call_is_here()
        elif self._refilling and self._lines.in_flight:
            return await self._turn(ticket)
        if entry := self._entry(ticket):
            self._take(ticket)
            return entry is _Entry.AHEAD
        return await self._turn(ticket)

    async def _turn(self, ticket: Ticket) -> bool:
        """Wait for a slot."""
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
        group, tenant, size = self._groups[ticket.rank], ticket.tenant, self._size(ticket)
        held = group.by_tenant.get(tenant, 0)
        if held < size or self._held[ticket.rank] < size:
            raise RuntimeError(f"no {ticket.rank.name} of {tenant} holds a slot")
        if held == size:
            del group.by_tenant[tenant]
        else:
            group.by_tenant[tenant] = held - size
        group.leave(size)
        if self.refill and group is self._lines:
            self.refill.ended(ticket.tokens)
        self._held[ticket.rank] -= size
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

    def _size(self, ticket: Ticket) -> int:
        """How many slots it takes: always the same, so that what is taken is given back."""
        return 1 if ticket.sequences == 1 else min(ticket.sequences, max(1, self._slots // 2))

    def _entry(self, ticket: Ticket) -> _Entry:
        """Whether slots are free for him. Calls come first by the order in which slots are handed out."""
        size = self._size(ticket)
        with_him = self._calls.in_flight + self._lines.in_flight + size
        if self._shut or with_him > self._slots:
            return _Entry.NO
        if self._groups[ticket.rank] is self._calls:
            return _Entry(may_take(ticket.tenant, self._calls.by_tenant, with_him - size, self._slots, size))
        if self._lines_held:
            return _Entry.NO
        lines = self._lines.in_flight + size
        if lines == size:  # alone, it comes in however many it takes
            lines = min(lines, self._budget, self._least_lines) or 1
        entry = _Entry.YES
        if lines > self._budget or (with_him > self._most_lines and lines > self._least_lines):
            if with_him > self._most_with_overtakers or self._budget < self._most_lines:
                return _Entry.NO
            entry = self._overtakes(ticket, size)
        return _Entry.NO if entry and self._refills() else entry

    def _refills(self) -> bool:
        """Whether lines have to wait, since calls are present; the next one is handed its slot in time."""
        if not self.refill or not self._lines.in_flight:
            return False
        if self._calls.in_flight:
            self.refill.call_is_here()
        wait_seconds = self.refill.wait_seconds(self._lines.in_flight / max(self._budget, 1))
        if wait_seconds and not self._refilling:
            self._refilling = asyncio.get_running_loop().call_later(wait_seconds, self._refilled)
        return wait_seconds > 0

    def _refilled(self) -> None:
        self._refilling = None
        self._hand_out()

    def _overtakes(self, ticket: Ticket, size: int) -> _Entry:
        """Whether a line needn't wait for those who fill the budget: some of them go behind it."""
        left = self._budget - sum(self._held[first] for first in self._lines.ranks if first < ticket.rank)
        if self._held[ticket.rank] + size <= left:
            return _Entry.YES
        holders = self._lines.by_tenant
        mine = holders.get(ticket.tenant, 0)
        return _Entry.AHEAD if mine + size <= left // (len(holders) + (not mine)) else _Entry.NO

    def _take(self, ticket: Ticket) -> None:
        group, tenant, size = self._groups[ticket.rank], ticket.tenant, self._size(ticket)
        group.enter(size)
        if self.refill and group is self._lines:
            self.refill.entered(ticket.tokens)
        group.by_tenant[tenant] = group.by_tenant.get(tenant, 0) + size
        self._held[ticket.rank] += size
        self._moved(group, tenant)

    def _moved(self, group: _Group, tenant: str) -> None:
        for rank in group.ranks:
            if waiters := self._waiters[rank]:
                waiters.moved(tenant)

    def _hand_out(self) -> None:
        for waiters in self._waiters:
            while waiters and (entry := self._entry(waiters.next)):
                turn = waiters.pop()
                if not turn.admitted.done():  # It is done if its task was cancelled but has not run since.
                    self._take(turn.ticket)
                    turn.admitted.set_result(entry is _Entry.AHEAD)
