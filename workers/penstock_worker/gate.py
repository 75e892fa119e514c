"""The gate: how many lines may be in flight in the engine, and who is next.

It lives on one asyncio loop and needs no lock. What holds after every step: a free slot and a waiting line never
exist together, for whoever frees a slot hands it to the most urgent waiter (lane order, then first come) at once.
So an admission that finds a slot free needn't look at anyone else, and takes it without suspension.

`alone` empties the engine for one who tries suspects: meanwhile the gate is shut, and everybody else waits.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from penstock.domain.lane import LANES, Lane

_NOBODY: Final = 0


class Gate:
    """The batch lines' slots in one engine.

    `budget` can change at any time: more slots go to waiters at once, fewer take effect as lines come back. Slots
    that are kept free for waiting calls are no part of the budget: the engine is started with room above it.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held = dict.fromkeys(LANES, _NOBODY)
        self._in_flight = 0
        self._shut = False
        self._trials = asyncio.Lock()
        self._empty: asyncio.Future[None] | None = None
        # Ordered dicts as queues: a waiter that is cancelled leaves its place in constant time.
        self._waiting: dict[Lane, OrderedDict[asyncio.Future[None], None]] = {lane: OrderedDict() for lane in LANES}

    @property
    def budget(self) -> int:
        """How many lines may be in flight."""
        return self._budget

    @budget.setter
    def budget(self, slots: int) -> None:
        self._budget = slots
        self._hand_out()

    @property
    def in_flight(self) -> int:
        """Lines that hold a slot, those that were just handed one included."""
        return self._in_flight

    def held(self, lane: Lane) -> int:
        """Lines of a lane that hold a slot."""
        return self._held[lane]

    def waiting(self, lane: Lane) -> int:
        """Lines of a lane that wait for a slot."""
        return len(self._waiting[lane])

    async def admit(self, lane: Lane) -> None:
        """Take a slot, waiting for one if need be; give it back with `release`. A cancelled admission holds none."""
        if self._in_flight < self._limit:
            self._take(lane)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting[lane][turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(lane)  # The slot came in the same moment as the cancellation.
            else:
                self._waiting[lane].pop(turn, None)
            raise

    def release(self, lane: Lane) -> None:
        """Give a slot back, to the next in line if one waits."""
        if not self._held[lane]:
            raise RuntimeError(f"no line of lane {lane} holds a slot")
        self._held[lane] -= 1
        self._in_flight -= 1
        self._hand_out()
        if not self._in_flight and self._empty and not self._empty.done():
            self._empty.set_result(None)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Have the engine to oneself: nobody is admitted, and what was in flight has come back. One after the other."""
        async with self._trials:
            self._shut = True
            try:
                if self._in_flight:
                    self._empty = asyncio.get_running_loop().create_future()
                    await self._empty
                yield
            finally:
                self._shut = False
                self._hand_out()

    @property
    def _limit(self) -> int:
        return 0 if self._shut else self._budget

    def _take(self, lane: Lane) -> None:
        self._held[lane] += 1
        self._in_flight += 1

    def _hand_out(self) -> None:
        for lane in LANES:
            queue = self._waiting[lane]
            while queue and self._in_flight < self._limit:
                turn, _ = queue.popitem(last=False)
                if not turn.done():  # It is done if its task was cancelled but has not run since.
                    self._take(lane)
                    turn.set_result(None)
