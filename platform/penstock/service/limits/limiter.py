"""The limiter: one process's word on what a request may take now, by its tenant's limits and its key's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final

from penstock.domain.accounts.access import Access
from penstock.domain.api_errors import TooMany
from penstock.domain.limits.limit import LimitName
from penstock.service.limits import defaults
from penstock.service.limits.at_once import AtOnce, Held
from penstock.service.limits.rates import Rate, Rates, RateState
from penstock.settings import Settings
from penstock.wire.rate_buckets import RateBuckets

_HEADERS: Final = {LimitName.REQUESTS_PER_MINUTE: "requests", LimitName.TOKENS_PER_MINUTE: "tokens"}
"""As OpenAI's headers call them."""


class Limiter:
    """On one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rates = Rates(RateBuckets(settings.redis_url, settings.hint_timeout_seconds))
        self._at_once = AtOnce(settings)

    def rates(self, access: Access, name: LimitName) -> Iterator[Rate]:
        """The rates that a key's requests pay: its own first, for it is the smaller one."""
        own = access.key_limits.get(name)
        if own is not None:
            yield Rate(f"key:{access.key}", name, own)
        all_keys = defaults.limit(name, access.limits, self._settings)
        if all_keys is not None:
            yield Rate(f"tenant:{access.tenant}", name, all_keys)

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

    def held(self, access: Access, name: LimitName, amount: int = 1) -> AbstractContextManager[Held]:
        """Hold something until the end; raise TooMany."""
        return self._at_once.held(access, name, amount)

    def holds(self, owner: str, name: LimitName) -> int:
        """How much a tenant or a key holds in this process."""
        return self._at_once.of(owner, name)

    def headers(self, access: Access) -> dict[str, str]:
        """How its rates stand, as OpenAI says it: `x-ratelimit-remaining-requests` and so on, of the tightest one."""
        told: dict[str, str] = {}
        for name, unit in _HEADERS.items():
            found = [self._rates.state(rate) for rate in self.rates(access, name)]
            if found:
                one = min(found, key=lambda state: state.remaining)
                told |= {
                    f"x-ratelimit-limit-{unit}": str(one.limit),
                    f"x-ratelimit-remaining-{unit}": str(one.remaining),
                    f"x-ratelimit-reset-{unit}": _duration(one.reset_seconds),
                }
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
