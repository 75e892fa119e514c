"""Turns of requests: how many this process works on at once, and whose is next: the tenant's with the fewest in work.

Where others asked within the last seconds a tenant has an equal share of the places, whether they have a request in
work at this moment or not: what is in work already shares the loop with whoever comes. One that is alone may have
several times as many, since what comes together is cheaper together: its small jobs share statements and claims.

Where two tenants are there, one request is let in at a round of the loop. A call is let in, sent to an engine and out
again within a round: however few may be in work at once, all that came would be served between two steps of a job.

All requests share one event loop and one pool of connections. Without turns whoever sends most has most of both: of a
tenant's 256 lists at once each would wait before anybody else's one. A request has its turn from its head to the start
of its answer, and gives it back while it only waits: a long poll, an engine, a client that sends its body slowly. What
waits long for something else, a store that is far away, has it until `LONGEST_SECONDS` have gone.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from starlette.types import Scope

from penstock.domain.api_errors import TooMany

LONGEST_SECONDS: Final = 10.0
"""As long as one waits for a connection of the pool. A shorter one ends the turns of requests that are only slow, on a
machine that is very busy, and lets in others that make them slower still, until they all wait for the pool in vain."""
_CLIENT_SECONDS: Final = 0.05
"""A client that takes longer to send what is next is slow."""
NOBODY: Final = ""
"""Whose requests have no key that is known here yet: all of them together are one tenant, with few places."""
_NOBODYS_PLACES: Final = 2
_SEEN_SECONDS: Final = 2.0
_MOST_SEEN: Final = 1_000
_MOST_WAITING: Final = 2_000
"""Of one tenant in one process."""


class RequestTurn:
    """One request's; `leave` may be called any number of times."""

    __slots__ = ("_entered", "_tenant", "_turns", "ends")

    def __init__(self, turns: RequestTurns, tenant: str) -> None:
        self._turns = turns
        self._tenant = tenant
        self._entered: float | None = None
        self.ends = 0.0
        """From when on others who wait may have it."""

    async def enter(self) -> None:
        """Wait for the turn, unless it has it; raises TooMany if very many of this tenant's wait already."""
        if self._entered is None:
            await self._turns.wait(self._tenant)
            self._entered = time.monotonic()
            self.ends = self._entered + LONGEST_SECONDS
            self._turns.has(self)

    def leave(self) -> None:
        """Let the next one have it."""
        if self._entered is not None:
            self._entered = None
            self._turns.has_no_more(self)
            self._turns.give_back(self._tenant)

    def leave_soon(self) -> None:
        """It is given back unless it is to `stay` before: what is waited for is the client's."""
        if self._entered is not None:
            self.ends = time.monotonic() + _CLIENT_SECONDS
            self._turns.watch()

    def stay(self) -> None:
        """The client was quick, or the turn is over already."""
        if self._entered is not None:
            self.ends = self._entered + LONGEST_SECONDS

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """It is given back meanwhile, and waited for again after that."""
        self.leave()
        yield
        await self.enter()


def of(scope: Scope) -> RequestTurn:
    """The turn of the request with this scope."""
    turn: RequestTurn = scope["penstock.turn"]
    return turn


class RequestTurns:
    """One API process's, on its event loop."""

    def __init__(self, places: int, *, alone: int = 4, clock: Callable[[], float] = time.monotonic) -> None:
        self._places = places
        self._alone = alone
        """How many times as many a tenant may have that is alone."""
        self._clock = clock
        self._seen: dict[str, float] = {}
        """When a tenant asked last, for those who did lately, the latest at the end."""
        self._in_work: dict[str, int] = {}
        self._all_in_work = 0
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By tenant, those first that have waited longest since one of them was let in."""
        self._round: asyncio.Handle | None = None
        """The loop's next round, if one was let in at this one while another tenant was there."""
        self._held: set[RequestTurn] = set()
        self._watching: asyncio.TimerHandle | None = None
        self._watching_until = 0.0

    async def wait(self, tenant: str) -> None:
        """Return once it is the tenant's turn; `give_back` must follow. Raises TooMany."""
        self._see(tenant)
        if tenant not in self._waiting and self._round is None and self._may(tenant):
            self._take(tenant)
            return
        waiting = self._waiting.setdefault(tenant, deque())
        if len(waiting) >= _MOST_WAITING:
            raise TooMany(f"{_MOST_WAITING} requests of yours wait already.", headers={"retry-after": "1"})
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        self.watch()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(tenant)
            raise

    def _see(self, tenant: str) -> None:
        now = self._clock()
        self._seen.pop(tenant, None)
        self._seen[tenant] = now
        self._forget(now)

    def _forget(self, now: float) -> None:
        while self._seen and (
            self._seen[first := next(iter(self._seen))] <= now - _SEEN_SECONDS or len(self._seen) > _MOST_SEEN
        ):
            del self._seen[first]

    def give_back(self, tenant: str) -> None:
        """The tenant's request needs its place no more."""
        self._all_in_work -= 1
        self._in_work[tenant] -= 1
        if not self._in_work[tenant]:
            del self._in_work[tenant]
        if self._waiting:
            self._forget(self._clock())
            self._let_in_who_may()

    def has(self, turn: RequestTurn) -> None:
        """A request was let in, and has its turn until it `ends`."""
        self._held.add(turn)
        self.watch()

    def has_no_more(self, turn: RequestTurn) -> None:
        """It has left."""
        self._held.discard(turn)

    def watch(self) -> None:
        """While requests wait, be there when the first of those in work has been there for long enough.

        One timer serves all of them, and none where nobody waits: one for each would cost more than the turn itself.
        """
        if not self._waiting or not self._held:
            return
        first = min(turn.ends for turn in self._held)
        if self._watching is not None:
            if self._watching_until <= first:
                return
            self._watching.cancel()
        self._watching_until = first
        self._watching = asyncio.get_running_loop().call_later(max(0.0, first - time.monotonic()), self._end_long_ones)

    def _end_long_ones(self) -> None:
        self._watching = None
        if self._waiting:
            now = time.monotonic()
            for turn in [turn for turn in self._held if turn.ends <= now]:
                turn.leave()
            self.watch()

    def _let_in_who_may(self) -> None:
        while self._round is None and (chosen := self._next()) is not None:
            self._let_in(chosen)

    def _let_in(self, tenant: str) -> None:
        waiting = self._waiting.pop(tenant)
        while waiting:
            turn = waiting.popleft()
            if not turn.done():
                self._take(tenant)
                turn.set_result(None)
                break
        if waiting:
            self._waiting[tenant] = waiting  # behind the others who have as few in work

    def _next(self) -> str | None:
        able = [tenant for tenant in self._waiting if self._may(tenant)]
        return min(able, key=lambda tenant: self._in_work.get(tenant, 0), default=None)

    def _may(self, tenant: str) -> bool:
        tenants = max(1, len(self._seen))
        share = self._places * self._alone if tenants == 1 else max(1, self._places // tenants)
        # Of a few tenants the shares are the bound; beyond them there is only what one has left that was alone.
        most = self._places if tenants > self._places else self._places * (self._alone + 1)
        mine = min(share, _NOBODYS_PLACES) if tenant == NOBODY else share
        return self._in_work.get(tenant, 0) < mine and self._all_in_work < most

    def _take(self, tenant: str) -> None:
        self._all_in_work += 1
        self._in_work[tenant] = self._in_work.get(tenant, 0) + 1
        if len(self._in_work) > 1 or not self._waiting.keys() <= self._in_work.keys():
            self._round = asyncio.get_running_loop().call_soon(self._next_round)

    def _next_round(self) -> None:
        self._round = None
        self._let_in_who_may()
