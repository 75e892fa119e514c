"""The supervisor: keeps one engine running under its guard, and knows whether it is alive.

    starting ──► ready ──► dead ──► starting …        stopped: from anywhere, for good
        └──────────────────►┘

It has a thread of its own, so that neither Celery nor the asyncio loop can hold it up. Every start is a new
generation. After a death it starts the engine again at once the first time, then after 1, 2, 4 … 60 s (jittered), but
2 s at most after one that had been ready: its start works, so what ended it was work; and after 60 s where the next
start would end alike (`EngineTrouble.final`). A minute of health forgives all earlier deaths, and so does a restart
that was ordered, which is no death. It never gives up: `reason` says why the last start or run ended, with the end of
the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import select
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from penstock.domain.engine_trouble import EngineTrouble
from penstock_worker.engine.launch_spec import Launch
from penstock_worker.engine.process import log_file, probe, process_record
from penstock_worker.engine.process.engine_process import EngineProcess
from penstock_worker.engine.process.guard import Process
from penstock_worker.engine.process.liveness_checks import LivenessChecks, settle
from penstock_worker.engine.process.watchdog import Watchdog

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 5.0
_MOST_BACKOFF_OF_READY_SECONDS: Final = 2.0


class EngineState(StrEnum):
    """starting: not yet ready · ready: answers · dead: waits for its next start · stopped: by us, for good."""

    STARTING = "starting"
    READY = "ready"
    DEAD = "dead"
    STOPPED = "stopped"


def backoff_seconds(deaths_in_row: int, chance: float, most_seconds: float = 60.0) -> float:
    """The wait before the next start: nothing after the first death, then 1, 2, 4 … s, each with up to ±20 %."""
    if deaths_in_row <= 1:
        return 0.0
    return min(most_seconds, 2.0 ** min(deaths_in_row - 2, 30)) * (0.8 + 0.4 * chance)


class Supervisor:
    """One engine's life, from `with` to its end. All methods may be called from any thread.

    `on_ready(generation)` and `on_death(generation, reason)` run in the supervisor's thread and must be quick
    (`loop.call_soon_threadsafe`). on_death comes once for every generation that ended by itself, ready or not, after
    its processes are gone; it does not come for `stop` and `restart`.
    """

    def __init__(
        self,
        launch: Launch,
        *,
        runtime_dir: Path,
        log_path: Path,
        on_ready: Callable[[int], None] | None = None,
        on_death: Callable[[int, str], None] | None = None,
        healthy_seconds: float = 60.0,
        most_backoff_seconds: float = 60.0,
        unresponsive_seconds: float = 60.0,
        stuck_seconds: float = 120.0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.launch = launch
        self.log_path = log_path
        self._record_path = runtime_dir / "engine.json"
        self._lock_path = runtime_dir / "engine.lock"
        self._on_ready = on_ready or (lambda generation: None)
        self._on_death = on_death or (lambda generation, reason: None)
        self._healthy_seconds = healthy_seconds
        self._most_backoff_seconds = most_backoff_seconds
        self._unresponsive_seconds = unresponsive_seconds
        self._stuck_seconds = stuck_seconds
        self._chance = chance
        self._lock = threading.Lock()
        self._state = EngineState.STARTING
        self._generation = 0
        self._reason = ""
        self._deaths_in_row = 0
        self._trouble: EngineTrouble | None = None
        self._stopping = False
        self._again = False
        """Whether this start is to end for another."""
        self._grace_seconds = 10.0
        self._askers = LivenessChecks()
        self._was_ready = False
        self._now: EngineProcess | None = None
        self._wake, self._wake_in = os.pipe()
        os.set_blocking(self._wake_in, False)
        self._thread = threading.Thread(target=self._run, name="engine-supervisor", daemon=True)
        self._owner = contextlib.ExitStack()

    # What others may know.

    @property
    def state(self) -> EngineState:
        """Where the engine is now."""
        return self._state

    @property
    def generation(self) -> int:
        """How often an engine was started; grows by one at each start."""
        return self._generation

    @property
    def reason(self) -> str:
        """Why the last engine ended, with the last lines of its log; empty if none has."""
        return self._reason

    @property
    def deaths_in_row(self) -> int:
        """Deaths since the engine was last well for a minute."""
        return self._deaths_in_row

    @property
    def trouble(self) -> EngineTrouble | None:
        """The starts that failed since the engine was last ready; None if none has."""
        return self._trouble

    @property
    def processes(self) -> tuple[Process, ...]:
        """Guard and engine processes as last seen, the guard first."""
        return self._now.processes if self._now else ()

    async def lives(self, generation: int | None = None, timeout_seconds: float = 2.0) -> bool:
        """Ask after a transport error: does the engine (this very start of it) answer a health probe that begins now?

        False at once if it is known to be dead or starting; else within the timeout. Many askers share one probe.
        """
        asked = self._ask(timeout_seconds, generation)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(asked), timeout_seconds + 1.0)
        except TimeoutError:
            return False

    def _ask(self, timeout_seconds: float, generation: int | None) -> Future[bool]:
        with self._lock:
            if self._state is EngineState.READY and generation in (None, self._generation):
                answer = self._askers.add(timeout_seconds)
            else:
                answer = Future()
                answer.set_result(False)
        self._nudge()
        return answer

    # Its lifetime.

    def __enter__(self) -> Self:
        self._record_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.launch.socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self._owner.enter_context(process_record.sole_owner(self._lock_path))
        if left := process_record.kill_leftovers(self._record_path):
            log.warning("Killed an engine that an earlier worker left behind (%d processes known).", left)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self, grace_seconds: float = 10.0) -> None:
        """End the engine: SIGTERM, then after the grace SIGKILL for its whole session. Returns once all is gone."""
        with self._lock:
            self._grace_seconds = grace_seconds
            self._stopping = True
        self._nudge()
        if self._thread.is_alive():
            self._thread.join()
        self._owner.close()

    def restart(self) -> int:
        """End the engine and start it again at once; the number of that start. Nobody may ask it from now on."""
        with self._lock:
            self._again = True
            number = self._generation + 1
        self._become(EngineState.DEAD)
        self._nudge()
        return number

    @property
    def _is_to_end(self) -> bool:
        return self._stopping or self._again

    def _nudge(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_in, b".")

    def _become(self, state: EngineState) -> None:
        with self._lock:
            self._state = EngineState.DEAD if self._again and state is EngineState.READY else state
            askers = self._askers.take()
        settle(askers, False)

    # The thread.

    def _run(self) -> None:
        try:
            while not self._stopping:
                try:
                    self._live_once()
                except Exception as error:  # No disk, no process, no memory: none of it may end the supervision.
                    log.exception("The %s engine can't be supervised now.", self.launch.profile.name)
                    self._mourn(f"It could not be started: {error}.")
                if self._trouble and self._trouble.final:
                    self._pause(self._most_backoff_seconds)  # unless somebody mends it, that is how it stays
                elif not self._is_to_end:
                    most = _MOST_BACKOFF_OF_READY_SECONDS if self._was_ready else self._most_backoff_seconds
                    self._pause(backoff_seconds(self._deaths_in_row, self._chance(), most))
        finally:
            self._become(EngineState.STOPPED)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._is_to_end and (left := until - time.monotonic()) > 0:
            self._wait(left)

    def _wait(self, seconds: float, line: socket.socket | None = None) -> bool:
        """Sleep until nudged, until the guard ends (True), or until the time is over."""
        watched: list[int | socket.socket] = [self._wake, line] if line else [self._wake]
        ready, _, _ = select.select(watched, [], [], max(0.0, seconds))
        if self._wake in ready:
            os.read(self._wake, 4096)
        return line in ready

    def _live_once(self) -> None:
        """One generation: start, wait until ready, watch, and clear up behind it."""
        with self._lock:
            self._generation += 1
            if self._again:
                self._again, self._deaths_in_row = False, 0
            self._state = EngineState.STARTING
            self._was_ready = False
            self._now = None
        one = EngineProcess(self.launch, self._generation, record_path=self._record_path, log_path=self.log_path)
        with one:
            self._now = one
            why = self._watch(one)
        if not self._is_to_end:
            self._mourn(f"{why} {one.status_in_words()}", one.status)

    def _watch(self, one: EngineProcess) -> str:
        """See the engine through readiness to its end; the result is what ended it, or nothing if we did."""
        why = self._until_ready(one)
        if not why and not self._is_to_end:
            log.info(
                "The %s engine of %s is ready (start %d).",
                self.launch.profile.name,
                self.launch.model,
                self._generation,
            )
            self._was_ready = True
            self._trouble = None
            self._become(EngineState.READY)
            _tell(self._on_ready, self._generation)
            why = self._until_death(one)
        if self._is_to_end:
            self._let_end(one)
        else:
            self._become(EngineState.DEAD)
        return why

    def _until_ready(self, one: EngineProcess) -> str:
        """Wait for readiness; the result is why it failed, or nothing."""
        begun = time.monotonic()
        step = 0.05
        while not self._is_to_end:
            if time.monotonic() - begun > self.launch.start_timeout_seconds:
                return f"It was not ready after {self.launch.start_timeout_seconds:.0f} s."
            if self._wait(step, one.line) and not one.heard():
                return "It ended before it was ready."
            one.note()
            if self._healthy(5.0) and self._serves():
                one.note()
                return ""
            step = min(1.0, step * 1.3)
        return ""

    def _healthy(self, timeout_seconds: float) -> bool:
        return probe.healthy(self.launch.socket, timeout_seconds, self.launch.health_path)

    def _serves(self) -> bool:
        launch = self.launch
        return not launch.lists_models or probe.serves(launch.socket, launch.model, 5.0)

    def _until_death(self, one: EngineProcess) -> str:
        """Watch a ready engine; the result is what ended it, or nothing if we do."""
        well_at = ready_at = time.monotonic()
        often = min(_LOOK_SECONDS, self._stuck_seconds / 4)
        look_at = ready_at + often
        watchdog = Watchdog(self.launch.socket, self.launch.profile.load, self._stuck_seconds, ready_at)
        while not self._is_to_end:
            if self._wait(look_at - time.monotonic(), one.line) and not one.heard():
                return "It ended by itself."
            now = time.monotonic()
            askers = self._askers.take()
            if now < look_at and not askers:
                continue
            if now >= look_at and (hung := watchdog.look(now)):
                settle(askers, False)
                return hung
            if well := self._healthy(2.0):
                well_at = now
                settle(askers, True)
                askers = []
            elif time.monotonic() - well_at > self._unresponsive_seconds:
                settle(askers, False)
                return f"It has not answered a health probe for {self._unresponsive_seconds:.0f} s."
            pause = 0.1 if self._askers.ask_on(askers) else often if well else min(1.0, often)
            look_at = time.monotonic() + pause
            if self._deaths_in_row and now - ready_at > self._healthy_seconds:
                self._deaths_in_row = 0
        return ""

    def _let_end(self, one: EngineProcess) -> None:
        """Ask the engine to end, and wait for that as long as the grace lasts."""
        self._become(EngineState.STOPPED if self._stopping else EngineState.DEAD)
        until = time.monotonic() + self._grace_seconds
        one.tell_to_end()
        while (left := until - time.monotonic()) > 0:
            if self._wait(left, one.line) and not one.heard():
                return

    def _mourn(self, why: str, status: int = 0) -> None:
        self._deaths_in_row += 1
        if not self._was_ready:
            failed_before = self._trouble.failed_starts if self._trouble else 0
            cause = log_file.cause(self.log_path)
            self._trouble = EngineTrouble(failed_before + 1, cause or why, log_file.comes_back(cause, status))
        self._reason = f"{why} The last lines of {self.log_path}:\n{log_file.tail(self.log_path)}"
        log.error(
            "The %s engine of %s is dead (start %d, %d in a row). %s",
            self.launch.profile.name, self.launch.model, self._generation, self._deaths_in_row, self._reason,
        )  # fmt: skip
        self._become(EngineState.DEAD)
        _tell(self._on_death, self._generation, self._reason)


def _tell(listener: Callable[..., None], *news: object) -> None:
    """Call a listener; its fault is its own."""
    try:
        listener(*news)
    except Exception:
        log.exception("A listener of the engine's supervisor failed.")
