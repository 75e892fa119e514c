"""Rates: what a tenant and a key may ask in a minute, over all API processes, without a round trip on a request's way.

A process takes from the shared bucket in grants, a fiftieth of a minute's worth each, before it needs them, and pays
from what it has. What it has no grant for yet it may owe, one grant at most: so all processes together let through at
most a fiftieth each beyond the limit, and pay it back. A request waits (a round trip) only where a grant and a debt
are used up faster than the next grant comes, and is refused from memory while the bucket is known to be empty. What a
process does not use goes back within two seconds. While Redis is away each process has a bucket of its own: it alone
allows the whole limit.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import structlog

from penstock.domain.api_errors import TooMany
from penstock.domain.limits.limit import RULES, LimitName
from penstock.domain.limits.token_bucket import TokenBucket
from penstock.wire.rate_buckets import Away, RateBuckets, Taking

log = structlog.get_logger()

GRANTS: Final = 50
"""Of a minute's worth; one is how far a process may be ahead of the bucket."""
_IDLE_SECONDS: Final = 1.0
_REMEMBERED_SECONDS: Final = 120.0
"""A purse says that its bucket is empty: forgotten earlier, it could owe a grant again and again."""


@dataclass(frozen=True)
class Rate:
    """One limit of one tenant or key."""

    owner: str
    """Whose, in words of a bucket: `tenant:acme`, `key:key_01…`."""
    name: LimitName
    per_minute: int

    @cached_property
    def bucket(self) -> str:
        """Its name in Redis; another limit is another bucket, full at first."""
        return f"{self.owner}:{self.name}:{self.per_minute}"


class RateState(NamedTuple):
    """How a rate stands for a client, as far as this process knows."""

    limit: int
    remaining: int
    reset_seconds: float
    """Until the bucket is full, if nothing more is asked."""


class _Purse:
    """What this process has of one bucket."""

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self.grant = max(1, rate.per_minute // GRANTS)
        self.credit = 0
        """Below 0: owed."""
        self.level, self.known_at = float(rate.per_minute), now
        """What the bucket held when it was last asked."""
        self.empty = False
        """The bucket had less than was wanted: nothing is owed until it has enough again."""
        self.empty_until = -math.inf
        """Before that it is not worth asking."""
        self.used_at = now
        self.needed = 0
        """What those who wait want."""
        self.settled: asyncio.Future[None] | None = None
        self.own: TokenBucket | None = None
        """While Redis is away."""

    def spend(self, amount: int, now: float) -> bool:
        """Pay, if that may be now."""
        if self.credit - amount < (0 if self.empty else -self.grant):
            return False
        self.credit -= amount
        self.used_at = now
        return True

    def taking(self) -> Taking:
        """What it pays and wants next."""
        return self._taking(max(0, -self.credit), max(0, self.grant - max(0, self.credit) + self.needed))

    def giving_back(self) -> Taking:
        """What evens it out: its credit, or what it owes."""
        return self._taking(-self.credit, 0)

    def _taking(self, owed: int, wanted: int) -> Taking:
        return Taking(self.rate.bucket, self.rate.per_minute, owed, wanted)

    def took(self, asked: Taking, taken: int, level: float, now: float) -> None:
        """It has paid, and got this."""
        self.credit += asked.owed + taken
        self.level, self.known_at = level, now
        if asked.wanted:
            self.empty = taken < asked.wanted
            self.empty_until = now + self._seconds(1 - level) if self.empty else -math.inf

    def _seconds(self, units: float) -> float:
        """Until so much has come into the bucket."""
        return max(0.0, units) * 60 / self.rate.per_minute if self.rate.per_minute else math.inf

    def _there(self, now: float) -> float:
        """What the bucket and this process have by now, if nobody else took any."""
        return self.level + (now - self.known_at) * self.rate.per_minute / 60 + self.credit

    def retry_seconds(self, amount: int, now: float) -> float:
        """Until so much may be asked again."""
        return self._seconds(amount - self._there(now))

    def state(self, now: float) -> RateState:
        """How it stands."""
        most = self.rate.per_minute
        level = min(most, self._there(now))
        return RateState(most, max(0, int(level)), self._seconds(most - level) if most else 60.0)


class Rates:
    """One API process's, on its event loop."""

    def __init__(self, buckets: RateBuckets, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._buckets = buckets
        self._clock = clock
        self._purses: dict[str, _Purse] = {}
        self._due: dict[str, _Purse] = {}
        self._settling: asyncio.Task[None] | None = None
        self._tending: asyncio.Task[None] | None = None

    async def take(self, rate: Rate, amount: int) -> None:
        """Pay so much of a rate; raise TooMany, with the time after which it may be asked again."""
        purse = self._purse(rate)
        if amount > rate.per_minute:
            words = f"This asks for {amount} {RULES[rate.name].words}, and {rate.name} is {rate.per_minute}."
            raise TooMany(words, headers={"x-should-retry": "false"})
        while not purse.spend(amount, now := self._clock()):
            if now < purse.empty_until:
                raise self._refused(purse, amount, now)
            purse.needed += amount
            try:
                await asyncio.shield(self._settle(purse))
            finally:
                purse.needed -= amount
        if purse.credit < purse.grant // 2 and now >= purse.empty_until:
            self._settle(purse)  # before anybody has to wait for it

    def charge(self, rate: Rate, amount: int) -> None:
        """Pay what is known only afterwards, or get back (below 0) what was paid too much; it is never refused."""
        purse = self._purse(rate)
        purse.credit -= amount
        purse.used_at = self._clock()
        if purse.credit < -purse.grant:
            self._settle(purse)

    def state(self, rate: Rate) -> RateState:
        """How a rate stands."""
        return self._purse(rate).state(self._clock())

    async def look(self, rate: Rate) -> RateState:
        """The same after a look at the bucket."""
        purse = self._purse(rate)
        await asyncio.shield(self._settle(purse))
        return purse.state(self._clock())

    def _refused(self, purse: _Purse, amount: int, now: float) -> TooMany:
        rate, seconds = purse.rate, max(1, math.ceil(purse.retry_seconds(amount, now)))
        whose = "this key" if rate.owner.startswith("key:") else "your tenant"
        left = purse.state(now).remaining
        message = f"The limit {rate.name} of {whose} is {rate.per_minute}, {left} left: ask again in {seconds} s."
        return TooMany(message, headers={"retry-after": str(seconds)})

    def _purse(self, rate: Rate) -> _Purse:
        purse = self._purses.get(rate.bucket)
        if purse is None:
            purse = self._purses[rate.bucket] = _Purse(rate, self._clock())
            if self._tending is None or self._tending.done():
                self._tending = asyncio.create_task(self._tend())
        return purse

    def _settle(self, purse: _Purse) -> asyncio.Future[None]:
        """Settle with the bucket soon; all that are due go in one round trip."""
        if purse.settled is None or purse.settled.done():
            purse.settled = asyncio.get_running_loop().create_future()
            self._due[purse.rate.bucket] = purse
            if self._settling is None or self._settling.done():
                self._settling = asyncio.create_task(self._settle_all())
        return purse.settled

    async def _settle_all(self) -> None:
        while self._due:
            due, self._due = list(self._due.values()), {}
            error: Exception | None = None
            try:
                await self._exchange([(purse, purse.taking()) for purse in due])
            except Exception as bug:  # a bug of ours: those who wait hear it, and nobody waits for ever
                error = bug
            for purse in due:
                if purse.settled is None or purse.settled.done():
                    continue
                if error is None:
                    purse.settled.set_result(None)
                else:
                    purse.settled.set_exception(error)
                    purse.settled.exception()  # perhaps nobody waits for it

    async def _exchange(self, takings: list[tuple[_Purse, Taking]]) -> None:
        """Pay and take; without Redis at each purse's own bucket."""
        try:
            found = await self._buckets.take([asked for _, asked in takings])
        except Away:
            for purse, asked in takings:
                now = self._clock()
                purse.own = purse.own or TokenBucket.full(asked.per_minute, now)
                taken = purse.own.take(asked.owed, asked.wanted, now)
                purse.took(asked, taken, purse.own.level, now)
            return
        for (purse, asked), (taken, level) in zip(takings, found, strict=True):
            purse.own = None
            purse.took(asked, taken, level, self._clock())

    async def _tend(self) -> None:
        """Give back what is not used, and forget it later."""
        while self._purses:
            await asyncio.sleep(_IDLE_SECONDS)
            now = self._clock()
            idle = [one for one in self._purses.values() if now - one.used_at > _IDLE_SECONDS and not one.needed]
            for purse in idle:
                if now - purse.used_at > _REMEMBERED_SECONDS:
                    del self._purses[purse.rate.bucket]
            if any(one.credit for one in idle):
                try:
                    await self._give_back(idle)
                except Exception as error:  # a bug of ours must not keep what others wait for
                    log.error("rates_not_given_back", exc_info=error)

    async def close(self) -> None:
        """Give everything back, and stop."""
        tasks = [task for task in (self._settling, self._tending) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        left = list(self._purses.values())
        self._purses.clear()
        await self._give_back(left)
        await self._buckets.close()

    async def _give_back(self, purses: Sequence[_Purse]) -> None:
        await self._exchange([(one, one.giving_back()) for one in purses if one.credit])
