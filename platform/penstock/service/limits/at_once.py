"""At once: how much of something a tenant and a key hold in this process at this moment."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from penstock.domain.accounts.access import Access
from penstock.domain.api_errors import TooMany
from penstock.domain.limits.limit import RULES, LimitName
from penstock.service.limits import defaults
from penstock.settings.limits import LimitSettings


class Held:
    """What one request holds, from `with` on, which raises TooMany, to its end; it may grow."""

    __slots__ = ("_access", "_all", "_first", "_name", "amount")

    def __init__(self, all_held: AtOnce, access: Access, name: LimitName, amount: int) -> None:
        self._all = all_held
        self._access = access
        self._name = name
        self._first = amount
        self.amount = 0

    def __enter__(self) -> Self:
        self.grow(self._first)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.give_back(self._access, self._name, self.amount)

    def grow(self, more: int) -> None:
        """Hold so much more; raise TooMany."""
        self._all.add(self._access, self._name, more)
        self.amount += more


class AtOnce:
    """One API process's, on its event loop."""

    def __init__(self, settings: LimitSettings) -> None:
        self._settings = settings
        self._held: dict[tuple[str, LimitName], int] = {}

    def held(self, access: Access, name: LimitName, amount: int = 1) -> Held:
        """Hold something from `with` on to its end."""
        return Held(self, access, name, amount)

    def add(self, access: Access, name: LimitName, amount: int) -> None:
        """Count it; raise TooMany if the tenant or the key holds as much as it may."""
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
            used, rule = self._held.get((owner, name), 0), RULES[name]
            weight = min(amount, most) if rule.alone else amount
            if used + weight > most:
                message = f"The limit {name} of {whose} is {most} {rule.words}, and {used} are there: try later."
                raise TooMany(message, headers={"retry-after": "1"})
        for owner in (access.tenant, access.key):
            self._held[owner, name] = self._held.get((owner, name), 0) + amount

    def of(self, owner: str, name: LimitName) -> int:
        """How much a tenant or a key holds."""
        return self._held.get((owner, name), 0)

    def give_back(self, access: Access, name: LimitName, amount: int) -> None:
        """Count it no more."""
        for owner in (access.tenant, access.key):
            self._held[owner, name] = left = self._held.get((owner, name), 0) - amount
            if not left:
                del self._held[owner, name]
