"""The nemesis of a house with a pool: it strikes hosts, members and their engines too, and its operator steers.

The operator pins, wakes and cancels; what was pinned is unpinned a little later, and what a cancelled switch or two
failed starts put aside is woken again. Now and then all engines of each host are counted: more than may be awake and
asleep at once are a breach, and so is what outlives a host that was killed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
from faults import house_pool
from faults.house import House
from faults.house_pool import POOL
from faults.nemesis import KINDS, LEASE_SECONDS, Fault, Nemesis

from penstock.domain.api_errors import Conflict, Unavailable
from penstock.service.pools import decisions, pools
from penstock_worker.engine.process.guard import Process, look_up

_OF_GPU_WORKERS: Final = {kind for kind in KINDS if "gpu" in kind or "engine" in kind}
POOL_KINDS: Final = {kind: weight for kind, weight in KINDS.items() if kind not in _OF_GPU_WORKERS} | {
    "kill host": 10,
    "kill all hosts": 2,
    "restart host": 5,
    "stop host past its beat": 8,
    "stop host shortly": 4,
    "kill member": 12,
    "kill engine": 10,
    "stop member past its lease": 6,
    "stop engine shortly": 3,
    "version pinned": 6,
    "version woken": 6,
    "switch cancelled": 8,
}
"""How often each kind is drawn, in parts of all."""
MOST_ENGINES: Final = 2
"""On one host: one is awake, one asleep."""
_COUNT_SECONDS: Final = 2.0
_GONE_SECONDS: Final = 10.0
_CANCEL_SECONDS: Final = 10.0
_CANCELLABLE = "select id from pool_decisions where ended_at is null and state in ('decided', 'leaving')"
_NOT_AWAKE = """
    select queue from pool_versions v where not exists (
        select from pool_residents r where r.queue = v.queue and r.state in ('waking', 'awake'))
    order by unfit_reason is null, queue"""
_HOLDERS = """
    select id from workers where kind = 'gpu' and pid = any(%s) and seen_at > clock_timestamp() - interval '6 s'"""


@dataclass
class PoolNemesis(Nemesis):
    """Draws faults as every nemesis does, and those of a pool."""

    most_engines: int = 0
    """That were seen on one host at once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._count_at = time.monotonic()
        self._too_many: set[str] = set()

    def tend(self, strike: bool = True) -> None:
        """One turn, as ever; and it counts the engines of each host."""
        super().tend(strike)
        if time.monotonic() >= self._count_at:
            self._count_at = time.monotonic() + _COUNT_SECONDS
            self._count_engines()

    def calm(self, seconds: float = 600.0) -> None:
        """As ever; and each version is free to take its turn."""
        super().calm(seconds)
        for model in self.models:
            self.house.run(pools.unpin, POOL, f"{model}@v1")
        for model in self.models:
            self.house.run(pools.wake, POOL, f"{model}@v1")

    def _count_engines(self) -> None:
        found = house_pool.count_engines(self.house)
        self.most_engines = max(self.most_engines, *found.values())
        too_many = {host for host, count in found.items() if count > MOST_ENGINES}
        self.breaches += [f"{found[host]} engines were on {host} at once" for host in sorted(too_many & self._too_many)]
        self._too_many = too_many

    def _strike(self, fault: Fault) -> bool:
        striking: dict[str, Callable[[Fault], bool]] = {
            "kill all hosts": self._kill_hosts,
            "kill member": lambda fault: self._kill_one(house_pool.workers, fault),
            "kill engine": lambda fault: self._kill_one(house_pool.engines, fault),
            "stop member past its lease": lambda fault: self._freeze_one(
                house_pool.workers, fault, LEASE_SECONDS + 2.0 + fault.seconds
            ),
            "stop engine shortly": lambda fault: self._freeze_one(house_pool.engines, fault, fault.seconds),
            "version pinned": self._pin,
            "version woken": self._wake,
            "switch cancelled": self._cancel,
        }
        return striking[fault.kind](fault) if fault.kind in striking else super()._strike(fault)

    # Hosts, members, engines.

    def _kill_hosts(self, fault: Fault) -> bool:
        alive = [name for name in self.house.named("host") if self.house.lives(name)]
        for name in alive:
            self._kill(name)
        return bool(alive)

    def _kill(self, name: str) -> None:
        there = house_pool.every_process(self.house, name)
        super()._kill(name)
        if there:
            self._later(1.0, lambda: self._see_gone(name, there, time.monotonic() + _GONE_SECONDS))

    def _see_gone(self, name: str, there: list[Process], until: float) -> None:
        left = [process for process in there if _lives(process)]
        if left and time.monotonic() < until:
            self._later(1.0, lambda: self._see_gone(name, left, until))
        elif left:
            self.breaches.append(f"{left} outlived {name}, which was killed\n{self.house.tell(name)}")

    def _holders(self, name: str) -> list[UUID]:
        return self._held_by(house_pool.workers(self.house, name)) if name.startswith("host-") else []

    def _held_by(self, workers: list[Process]) -> list[UUID]:
        with suppress(psycopg.Error):
            return [id for (id,) in self.house.rows(_HOLDERS, [worker.pid for worker in workers])]
        return []

    def _one(self, those: Callable[[House, str], list[Process]], fault: Fault) -> Process | None:
        found = [process for name in self.house.named("host") for process in those(self.house, name)]
        return found[fault.victim % len(found)] if found else None

    def _kill_one(self, those: Callable[[House, str], list[Process]], fault: Fault) -> bool:
        victim = self._one(those, fault)
        if victim is None:
            return False
        holders, at = self._held_by([victim]), time.time()
        self.kills += [(holder, at) for holder in holders]
        return _send(victim, signal.SIGKILL)

    def _freeze_one(self, those: Callable[[House, str], list[Process]], fault: Fault, seconds: float) -> bool:
        victim = self._one(those, fault)
        if victim is None or not _send(victim, signal.SIGSTOP):
            return False
        self._later(seconds, lambda: _send(victim, signal.SIGCONT))
        return True

    # The operator.

    def _pin(self, fault: Fault) -> bool:
        model = self.models[fault.victim % len(self.models)]
        if not self._told(pools.pin, f"{model}@v1"):
            return False
        self._insist_later(fault.seconds * 5, pools.unpin, f"{model}@v1")
        return True

    def _wake(self, fault: Fault) -> bool:
        with suppress(psycopg.Error):
            found = self.house.rows(_NOT_AWAKE)
            return bool(found) and self._told(pools.wake, found[0][0])
        return False

    def _cancel(self, fault: Fault) -> bool:
        """Wait for a switch that may be cancelled, which is often asked for; it is counted once it happened."""
        if fault.victim % 2:
            self._wake(fault)
        self._try_to_cancel(time.monotonic() + _CANCEL_SECONDS)
        return False

    def _try_to_cancel(self, until: float) -> None:
        with suppress(psycopg.Error, Unavailable, Conflict):
            if self.house.ask(_CANCELLABLE):
                switch = self.house.run(decisions.cancel, POOL)
                self.counts["switch cancelled"] += 1
                if switch.comes is not None:  # else it would be left alone for five minutes
                    self._insist_later(10.0, pools.wake, switch.comes)
                return
        if time.monotonic() < until:
            self._later(0.0, lambda: self._try_to_cancel(until))

    def _told(self, say: Callable[..., Any], version: str) -> bool:
        """Whether it could be said, and was not refused."""
        with suppress(Unavailable, Conflict):
            self.house.run(say, POOL, version)
            return True
        return False

    def _insist_later(self, seconds: float, say: Callable[..., Any], version: str) -> None:
        def insist() -> None:
            try:
                self.house.run(say, POOL, version)
            except (Unavailable, Conflict):  # Postgres is away; another is pinned for a while
                self._later(1.0, insist)

        self._later(seconds, insist)


def _lives(process: Process) -> bool:
    now = look_up(process.pid)
    return now is not None and now.started_ticks == process.started_ticks


def _send(process: Process, number: int) -> bool:
    """False if it is gone, even if another has its pid now."""
    if not _lives(process):
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True
