"""Adapter residency: which adapters are in an engine that holds a few at once, and whose turn it is to come in.

Whoever asks an adapter says so (`wanted`), waits until it is in (`ready`), takes his slot at the gate, and enters
(`enter`): from then on until he leaves it is not unloaded. Nobody who is inside waits for another adapter, so no two
wait for each other. Who has taken a slot and may not enter gives it back, and waits again.

Room is made by unloading, least recently used first, what nobody is inside of or wants. Where all are wanted, who
waits for room gets it after `patience_seconds`: the adapter that has been in longest lets nobody else enter, and goes
once it is empty. So each gets its turn, and none is changed more often than once in that time.

It lives on one asyncio loop. An engine that was started again has none.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from penstock.domain.adapter import AdapterFault


@dataclass(eq=False, slots=True)
class Resident:
    """An adapter in the engine."""

    name: str
    """As the engine knows it."""
    since: float
    used: float
    inside: int = 0
    leaving: bool = False
    """Nobody else enters: it makes room."""


@dataclass(eq=False, slots=True)
class _Waiter:
    since: float
    came: asyncio.Future[None]


class AdapterResidency:
    """The adapters of one engine."""

    def __init__(
        self,
        slots: int,
        load: Callable[[str], Awaitable[str]],
        unload: Callable[[str], Awaitable[None]],
        generation: Callable[[], int],
        *,
        patience_seconds: float = 2.0,
    ) -> None:
        """`load` takes an adapter's id and answers its name in the engine, `unload` takes that name; both raise
        AdapterFault. `generation` is which start of the engine this is.
        """
        self._slots = slots
        self._load = load
        self._unload = unload
        self._generation = generation
        self._patience_seconds = patience_seconds
        self._of_generation = 0
        self._residents: dict[str, Resident] = {}
        self._wanted: Counter[str] = Counter()
        self._waiting: dict[str, _Waiter] = {}
        self._change: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def wanted(self, id: str) -> Iterator[None]:
        """Meanwhile somebody wants this adapter: it goes only if others have waited long enough."""
        self._wanted[id] += 1
        try:
            yield
        finally:
            self._wanted[id] -= 1
            if not self._wanted[id]:
                del self._wanted[id]
            self._turn()

    async def ready(self, id: str) -> None:
        """Wait until this adapter may be entered. Raises AdapterFault, and what asking the engine raises."""
        self._renew()
        one = self._residents.get(id)
        if one is not None and not one.leaving:
            return
        if not self._slots:
            raise AdapterFault("This model's worker is started without room for adapters: it needs --enable-lora.")
        loop = asyncio.get_running_loop()
        if id not in self._waiting:
            self._waiting[id] = _Waiter(loop.time(), loop.create_future())
            self._waiting[id].came.add_done_callback(_heard)
            self._turn()
            if id not in self._waiting:
                return
        await asyncio.shield(self._waiting[id].came)

    def enter(self, id: str) -> Resident | None:
        """Go in, and keep it there until `leave`; None if it is out again, or about to be: see `ready`."""
        self._renew()
        one = self._residents.get(id)
        if one is None or one.leaving:
            return None
        one.inside += 1
        one.used = asyncio.get_running_loop().time()
        return one

    def leave(self, one: Resident) -> None:
        """Whoever entered is done."""
        one.inside -= 1
        if self._waiting:
            self._turn()

    @property
    def loaded(self) -> tuple[str, ...]:
        """The ids of those that are in."""
        return tuple(self._residents)

    def _renew(self) -> None:
        if (now := self._generation()) != self._of_generation:
            self._of_generation = now
            self._residents.clear()

    def _turn(self) -> None:
        """Begin the next change, if one is due and none is under way."""
        if self._change is not None or not self._waiting:
            return
        self._renew()
        for id in [id for id in self._waiting if not self._wanted[id]]:
            self._waiting.pop(id).came.cancel()  # whoever wanted it has gone
        if not self._waiting:
            return
        id, waiter = next(iter(self._waiting.items()))
        leaver = None
        if id in self._residents or len(self._residents) >= self._slots:
            leaver = self._leaver(waiter.since)
            if leaver is None:
                return
        self._change = asyncio.get_running_loop().create_task(self._exchange(id, leaver))

    def _leaver(self, since: float) -> str | None:
        """Who may be unloaded now, for one who waits since then; if nobody may, this is looked at again in time."""
        idle = [id for id, one in self._residents.items() if not one.inside and (one.leaving or not self._wanted[id])]
        if idle:
            return min(idle, key=lambda id: self._residents[id].used)
        if any(one.leaving for one in self._residents.values()):
            return None  # it goes when it is empty
        longest = min(self._residents, key=lambda id: self._residents[id].since)
        loop, one = asyncio.get_running_loop(), self._residents[longest]
        due = max(since, one.since) + self._patience_seconds
        if loop.time() >= due:
            one.leaving = True
            return None if one.inside else longest
        if self._timer is None:
            self._timer = loop.call_at(due, self._due)
        return None

    def _due(self) -> None:
        self._timer = None
        self._turn()

    async def _exchange(self, id: str, leaver: str | None) -> None:
        error: BaseException | None = None
        try:
            if leaver is not None:
                one = self._residents.pop(leaver)
                try:
                    await self._unload(one.name)
                except BaseException:
                    self._residents[leaver] = one  # it may still be there
                    raise
            name = await self._load(id)
            self._renew()
            now = asyncio.get_running_loop().time()
            self._residents[id] = Resident(name, now, now)
        except BaseException as failed:
            error = failed
            if not isinstance(failed, Exception):
                raise
        finally:
            self._change = None
            if (waiter := self._waiting.pop(id, None)) and not waiter.came.done():
                if error is None:
                    waiter.came.set_result(None)
                else:
                    waiter.came.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
            self._turn()


def _heard(came: asyncio.Future[None]) -> None:
    """Nobody may be there any more to hear of it."""
    if not came.cancelled():
        came.exception()
