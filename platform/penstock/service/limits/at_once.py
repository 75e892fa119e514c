"""At once: how much of something a tenant and a key hold in this process at this moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from penstock.domain.accounts.access import Access
from penstock.domain.api_errors import TooMany
from penstock.domain.limits.limit import RULES, LimitName
from penstock.service.limits import defaults
from penstock.settings.limits import LimitSettings


class Held:
    """What one request holds; it may grow."""

    def __init__(self, all_held: AtOnce, access: Access, name: LimitName) -> None:
        self._all = all_held
        self._access = access
        self._name = name
        self.amount = 0

    def grow(self, more: int) -> None:
        """Hold so much more; raise TooMany."""
        self._all.add(self._access, self._name, more)
        self.amount += more


class AtOnce:
    """One API process's, on its event loop."""

    def __init__(self, settings: LimitSettings) -> None:
        self._settings = settings
        self._held: Counter[tuple[str, LimitName]] = Counter()

    @contextmanager
    def held(self, access: Access, name: LimitName, amount: int = 1) -> Iterator[Held]:
        """Hold something until the end; raise TooMany if the tenant or the key holds as much as it may."""
        held = Held(self, access, name)
        held.grow(amount)
        try:
            yield held
        finally:
            self._give_back(access, name, held.amount)

    def add(self, access: Access, name: LimitName, amount: int) -> None:
        """Count it; raise TooMany."""
        tenants = defaults.limit(name, access.limits, self._settings)
        for whose, owner, most in (
            ("your tenant", access.tenant, tenants),
            ("this key", access.key, access.key_limits.get(name)),
        ):
            if most is None:
                continue
            if most == 0:
                message = f"The limit {name} of {whose} is 0: none are let in."
                raise TooMany(message, headers={"x-should-retry": "false"})
            used, rule = self._held[owner, name], RULES[name]
            weight = min(amount, most) if rule.alone else amount
            if used + weight > most:
                message = f"The limit {name} of {whose} is {most} {rule.words}, and {used} are there: try later."
                raise TooMany(message, headers={"retry-after": "1"})
        self._held[access.tenant, name] += amount
        self._held[access.key, name] += amount

    def of(self, owner: str, name: LimitName) -> int:
        """How much a tenant or a key holds."""
        return self._held[owner, name]

    def _give_back(self, access: Access, name: LimitName, amount: int) -> None:
        for owner in (access.tenant, access.key):
            self._held[owner, name] -= amount
            if not self._held[owner, name]:
                del self._held[owner, name]
