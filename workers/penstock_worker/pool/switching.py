"""A switch: one version leaves its place on this host, another comes, step by step, and each step has an end.

    decided → leaving → stopping → waking → probing → done        cancelled: from decided and leaving; failed

Leaving, a version takes nothing new, and what it holds is given back or goes to its end: it loses no more than any
worker that is told to end. A step that lasts too long ends with a kill. Whoever does not come is started once more,
cold; then it is unfit, with the reason, and the policy goes on with the others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, Protocol, TypeVar
from uuid import UUID

import structlog

from penstock.domain.api_errors import Conflict, NotFound
from penstock.domain.engines.profile import EngineSleep
from penstock.domain.fleet.worker import Order, WorkerState
from penstock.domain.pools.decision import PoolDecision
from penstock.failpoint import failpoint
from penstock.settings import Settings
from penstock_worker.engine import device_memory
from penstock_worker.engine.process import probe
from penstock_worker.pool import sleep_protocol, token_probe
from penstock_worker.pool.member import Member
from penstock_worker.pool.member_launch import CannotBeMember, describe
from penstock_worker.pool.member_set import MemberSet
from penstock_worker.pool.pool_rows import PoolRows

log = structlog.get_logger()

RESTART: Final = "restart"
SLEEP: Final = "sleep"
_FREE_BYTES: Final = 512 * 1024 * 1024
"""So much more than before a member's start counts as free again: others use the device, too."""
_FORGIVEN_DEATHS: Final = 4
"""Of an engine that is ready and was not asked for its token yet: so many engines a line kills at most."""
_AGAIN_SECONDS: Final = 5.0
R = TypeVar("R")


class ServesAnother(Exception):
    """A member is ready, and its engine's digest is another version's."""


class HostEnds(Exception):
    """The host was told to end while it waited for something."""


class Patience(Protocol):
    """How the host waits: it looks after its members meanwhile, and raises HostEnds once it is told to end."""

    def until(self, look: Callable[[], bool], seconds: float) -> bool: ...
    def aside(self, do: Callable[[], R]) -> R: ...


class Switching:
    """Changes of places on one host, one after the other."""

    def __init__(self, rows: PoolRows, members: MemberSet, patience: Patience, settings: Settings, pool: str) -> None:
        self._rows = rows
        self._members = members
        self._patience = patience
        self._settings = settings
        self._pool = pool
        self._base_bytes: dict[str, float] = {}
        """Device memory in use before each was started, where that can be read."""

    def method(self, decision: PoolDecision) -> str:
        """How it will be done, as far as it is known before."""
        leaves = self._members.find(decision.leaves) if decision.leaves else None
        sleeps = leaves is not None and leaves.launch.sleep is not None
        return SLEEP if sleeps or decision.comes in self._members.asleep else RESTART

    def run(self, number: int, decision: PoolDecision) -> None:
        """Do what was decided under this number. Raises HostEnds."""
        began = time.monotonic()
        assert decision.comes is not None, "nothing is to be done"
        log.info("switch", decision=number, why=decision.why, leaves=decision.leaves, comes=decision.comes)
        failpoint("pool.decided")
        state, why = "done", ""
        if not self._leave(number, decision.leaves, decision.comes):
            state = "cancelled"
        elif why := self._come(number, decision.comes):
            state = "failed"
        seconds = time.monotonic() - began
        if state != "cancelled":
            self._rows.end(number, decision, seconds, why or None)
        log.info("switched", decision=number, state=state, seconds=round(seconds, 2), error=why or None)

    def end_unfinished(self) -> None:
        """End members that a switch left on their way; who was not told to end yet stays awake."""
        for member in self._members:
            queue = member.launch.queue
            if member.kept:
                self._stays(member)
            elif queue not in self._members.asleep:
                self._members.end(queue)
                self._rows.put(queue, "stopped")

    # Who leaves.

    def _leave(self, number: int, queue: str | None, comes: str) -> bool:
        """False if it was cancelled before anything was ended, or its host was taken for gone meanwhile."""
        if not self._rows.move(number, "leaving"):
            return False
        member = self._members.find(queue) if queue else None
        if queue and member:
            self._rows.put(queue, "leaving", member.worker)
        failpoint("pool.leaving")
        drained = bool(member and member.launch.sleep and self._drain(number, member))
        if not self._rows.move(number, "stopping"):
            if member:
                self._stays(member)
            return False
        if queue and member:
            if drained and self._put_to_sleep(member):
                self._rows.put(queue, "asleep", member.worker)
                self._make_room(comes)
            else:
                self.stop(member)
        elif queue:
            self._rows.put(queue, "stopped")
        failpoint("pool.stopped")
        return True

    def _stays(self, member: Member) -> None:
        """One that was to leave takes work again."""
        self._order(member, Order.UNDRAIN)
        self._rows.put(member.launch.queue, "awake", member.worker)

    def _drain(self, number: int, member: Member) -> bool:
        """Let a member take nothing new, and wait until it holds nothing; False if it does not, or it was cancelled.

        One that dies meanwhile is started again at once, as another worker: that one was never told.
        """
        told = member.worker
        if told is None or not self._order(member, Order.DRAIN):
            return False
        cancelled = False

        def look() -> bool:
            nonlocal cancelled
            cancelled = not self._rows.move(number, "leaving")
            return cancelled or not member.runs or member.worker != told or self._is_drained(told)

        seen = self._patience.until(look, self._settings.pool_leave_seconds)
        return seen and not cancelled and member.runs and member.worker == told

    def _is_drained(self, worker: UUID) -> bool:
        try:
            view = self._rows.worker(worker)
        except NotFound:
            return False
        return view.stands(self._settings.worker_gone_seconds) is WorkerState.DRAINED

    def _order(self, member: Member, what: Order) -> bool:
        if member.worker is None:
            return False
        try:
            self._rows.order(member.worker, what)
        except (Conflict, NotFound):
            return False
        return True

    def _put_to_sleep(self, member: Member) -> bool:
        sleep, launch = member.launch.sleep, member.launch
        assert sleep is not None, "it can't sleep"
        member.kept = False
        failpoint("pool.stopping")
        settings, base = self._settings, self._base_bytes.get(launch.queue, 0.0)
        engine = member.engine
        why = self._patience.aside(
            lambda: sleep_protocol.fall_asleep(
                launch.socket, sleep, settings.pool_sleep_seconds, settings.pool_sleep_frees, base
            )
        )
        if why or not member.runs:
            self._failed(member, why or "It died while it fell asleep.", "pool_sleep_failed")
            return False
        self._members.asleep[launch.queue] = engine
        return True

    def stop(self, member: Member) -> None:
        """End a member; afterwards it is gone with its engine, and what it had of the device is free."""
        queue = member.launch.queue
        member.terminate()
        failpoint("pool.stopping")
        if not self._patience.until(lambda: not member.runs, self._settings.pool_leave_seconds):
            log.error("member_overstays", queue=queue, seconds=self._settings.pool_leave_seconds)
            self._rows.count("pool_member_killed")
        self._members.end(queue)
        self._see_memory_free(queue)
        self._rows.put(queue, "stopped")

    def _see_memory_free(self, queue: str) -> None:
        base = self._base_bytes.pop(queue, None)
        if base is None:
            return
        most = base + _FREE_BYTES
        if not self._patience.until(
            lambda: (device_memory.used_bytes() or 0.0) <= most, self._settings.pool_memory_seconds
        ):
            log.warning("memory_not_free", queue=queue, used_bytes=device_memory.used_bytes(), before_bytes=base)

    def _make_room(self, comes: str) -> None:
        """End those that have slept longest, if more sleep than may; not who is about to be woken."""
        sleep = [queue for queue in self._members.asleep if queue != comes]
        for queue in sleep[: max(0, len(sleep) - self._settings.pool_asleep)]:
            self.stop(self._members.of(queue))

    # Who comes.

    def _come(self, number: int, queue: str) -> str:
        """Why it did not come, twice; or empty."""
        why = ""
        for _ in range(2):
            self._rows.move(number, "waking")
            self._rows.put(queue, "waking")
            other = False
            try:
                why = self._wake(number, queue) if queue in self._members.asleep else self._start(number, queue)
            except ServesAnother as error:  # it took work of that version, perhaps: it gives that back
                why, other = str(error), True
            member = self._members.find(queue)
            if not why and member is not None:
                member.kept = True
                self._rows.put(queue, "awake", member.worker)
                failpoint("pool.awake")
                return ""
            if member is not None:
                self._failed(member, why, "pool_start_failed")
                if other:
                    self.stop(member)
                    break
                self._members.end(queue)
        self._rows.put(queue, "stopped")
        self._rows.unfit(queue, why)
        return why

    def _failed(self, member: Member, why: str, count: str) -> None:
        log.error("switch_step_failed", queue=member.launch.queue, why=why)
        self._rows.count(count)

    def _start(self, number: int, queue: str) -> str:
        version = self._rows.version(queue)
        if version is None:
            return f"There is no version {queue}."
        try:
            member = self._members.add(describe(self._pool, version, self._settings, os.environ))
            if (used := device_memory.used_bytes()) is not None:
                self._base_bytes[queue] = used
            member.start()
        except (CannotBeMember, OSError) as error:
            return str(error)
        failpoint("pool.waking")
        died: set[int | None] = set()
        while True:
            why = self._ready(member)
            if why:
                return why
            engine = member.engine
            why = self._probe(number, member)
            if not why or (member.engine == engine and self._is_well(member)):
                return why
            # It serves since it was ready: a line may have killed it. Its worker has it back soon.
            if engine in died or len(died) == _FORGIVEN_DEATHS:
                return why
            log.warning("died_while_probed", queue=queue, deaths=len(died) + 1)
            died.add(engine)
            self._patience.until(lambda gone=engine: member.engine != gone, _AGAIN_SECONDS)  # type: ignore[misc]

    def _ready(self, member: Member) -> str:
        """Wait until a member that starts is ready; why it is not, or empty."""
        why = ""

        def look() -> bool:
            nonlocal why
            ready, why = self._stands(member)
            return ready or bool(why)

        if not self._patience.until(look, self._settings.pool_start_seconds):
            return f"It was not ready after {self._settings.pool_start_seconds:.0f} s."
        return why

    def _is_well(self, member: Member) -> bool:
        return self._patience.aside(lambda: probe.healthy(member.launch.socket, _AGAIN_SECONDS))

    def _stands(self, member: Member) -> tuple[bool, str]:
        """Whether a member that starts is ready, and what keeps it from that. Raises Unavailable, ServesAnother."""
        if not member.runs:
            return False, member.last_word or "It ended before it was ready."
        worker = self._rows.workers().get(member.pid or 0)
        if worker is None:
            return False, ""
        member.worker = worker.id
        if worker.failed_starts:
            return False, worker.engine_trouble or "Its engine does not start."
        if worker.state != "ready":
            return False, ""
        if worker.model != member.launch.queue:
            raise ServesAnother(f"What is at its source is another version now, {worker.model}.")
        return True, ""

    def _wake(self, number: int, queue: str) -> str:
        """Wake one that sleeps: it takes work again once it has answered a request."""
        member = self._members.of(queue)
        sleep = member.launch.sleep
        slept = self._members.asleep.pop(queue)
        if not member.runs or sleep is None or member.worker is None or member.engine != slept:
            return "It died in its sleep."
        failpoint("pool.waking")
        why = self._woken(member, sleep) or self._probe(number, member)
        if why:
            return why
        self._order(member, Order.UNDRAIN)

        def look() -> bool:
            return not member.runs or self._stands(member)[0]

        if self._patience.until(look, self._settings.pool_sleep_seconds) and member.runs:
            return ""
        return "It takes no work again after its sleep."

    def _woken(self, member: Member, sleep: EngineSleep) -> str:
        seconds = self._settings.pool_sleep_seconds
        return self._patience.aside(lambda: sleep_protocol.wake_up(member.launch.socket, sleep, seconds))

    def _probe(self, number: int, member: Member) -> str:
        self._rows.move(number, "probing")
        failpoint("pool.probing")
        launch, seconds = member.launch, self._settings.pool_probe_seconds
        return self._patience.aside(lambda: token_probe.fault(launch.socket, launch.model, seconds))
