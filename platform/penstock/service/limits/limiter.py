"""The limiter: one process's word on what a request may take now, by its tenant's limits and its key's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Final

from penstock.domain.accounts.access import Access
from penstock.domain.api_errors import TooMany
from penstock.domain.limits.limit import LimitName
from penstock.service.limits import defaults
from penstock.service.limits.at_once import AtOnce, Held
from penstock.service.limits.rates import Rate, Rates, RateState
from penstock.settings import Settings
from penstock.wire.rate_buckets import RateBuckets

_HEADERS: Final = {
    name: tuple(f"x-ratelimit-{what}-{unit}" for what in ("limit", "remaining", "reset"))
    for name, unit in ((LimitName.REQUESTS_PER_MINUTE, "requests"), (LimitName.TOKENS_PER_MINUTE, "tokens"))
}
"""As OpenAI calls them."""
_rate = lru_cache(10_000)(Rate)
"""Each request has several, the same ones again and again."""


class Limiter:
    """On one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rates = Rates(RateBuckets(settings.redis_url, settings.hint_timeout_seconds))
        self._at_once = AtOnce(settings)

    def rates(self, access: Access, name: LimitName) -> Sequence[Rate]:
        """The rates that a key's requests pay: its own first, for it is the smaller one."""
        own, all_keys = access.key_limits.get(name), defaults.limit(name, access.limits, self._settings)
        rates = [_rate(f"key:{access.key}", name, own)] if own is not None else []
        if all_keys is not None:
            rates.append(_rate(f"tenant:{access.tenant}", name, all_keys))
        return rates

    async def take(self, access: Access, name: LimitName, amount: int = 1) -> None:
        """Pay so much of a rate; raise TooMany, and then nothing is paid."""
        paid: list[Rate] = []
        try:
            for rate in self.rates(access, name):
                await self._rates.take(rate, amount)
                paid.append(rate)
        except TooMany:
            for rate in paid:
                self._rates.charge(rate, -amount)
            raise

    def charge(self, access: Access, name: LimitName, amount: int) -> None:
        """Pay what is known only afterwards, or get back what was too much."""
        for rate in self.rates(access, name):
            self._rates.charge(rate, amount)

    def held(self, access: Access, name: LimitName, amount: int = 1) -> Held:
        """Hold something from `with` on to its end."""
        return self._at_once.held(access, name, amount)

    def holds(self, owner: str, name: LimitName) -> int:
        """How much a tenant or a key holds in this process."""
        return self._at_once.of(owner, name)

    def headers(self, access: Access) -> dict[str, str]:
        """How its rates stand, as OpenAI says it: `x-ratelimit-remaining-requests` and so on, of the tightest one."""
        told: dict[str, str] = {}
        for name, (limit, remaining, reset) in _HEADERS.items():
            rates = self.rates(access, name)
            if rates:
                one = min((self._rates.state(rate) for rate in rates), key=attrgetter("remaining"))
                told[limit], told[remaining] = str(one.limit), str(one.remaining)
                told[reset] = _duration(one.reset_seconds)
        return told

    async def look(self, rate: Rate) -> RateState:
        """How a rate stands over all processes."""
        return await self._rates.look(rate)

    async def close(self) -> None:
        """Give back what was not used."""
        await self._rates.close()


def _duration(seconds: float) -> str:
    """A time as OpenAI writes it: `120ms`, `6s`, `1m30s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1_000)}ms"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
