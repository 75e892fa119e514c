"""Worker status: what Postgres is told of a worker: starting → ready (or drained) → starting … → draining → gone.

One thread tells, one thing after the other, so that neither the engine's supervisor nor a signal waits for a database,
and the last word is the latest. Once the worker ends, nothing makes it ready again.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import structlog

from penstock.domain.api_errors import Unavailable
from penstock.domain.engine_trouble import EngineTrouble
from penstock.domain.engines.profile import EngineProfile
from penstock.domain.work.holder import Holder
from penstock.service.core.transaction import Database
from penstock.service.lifecycle import work
from penstock.settings.dispatch import DispatchSettings
from penstock_worker.runtime.beat import Beat
from penstock_worker.runtime.patience import insist

log = structlog.get_logger()


def say_goodbye(db: Database, holder: Holder, settings: DispatchSettings) -> None:
    """A worker of any kind is gone; tried once, and not at all where the database was away a moment ago."""
    db.hurry()
    try:
        db.run(work.mark, holder, "gone", settings)
    except Unavailable as error:  # it will be seen as gone by its silence
        log.warning("goodbye_unheard", error=error.message)


class WorkerStatus:
    """One worker's status, from `with` to its end."""

    def __init__(
        self,
        db: Database,
        beat: Beat,
        holder: Holder,
        settings: DispatchSettings,
        give_up: Callable[[EngineTrouble], None] = lambda trouble: None,
    ) -> None:
        """`give_up` is called once Postgres knows of an engine that was never ready, and whose trouble is final."""
        self._db = db
        self._beat = beat
        self._holder = holder
        self._settings = settings
        self._give_up = give_up
        self._was_ready = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="status")
        self._works = holder.kind != "gpu"
        """Whether it could work: its engine is ready, or it has none."""
        self._trouble: EngineTrouble | None = None

    def __enter__(self) -> WorkerStatus:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True)

    def serve(self, holder: Holder) -> None:
        """Tell for this holder from now on: its model is the queue of the version that it serves."""
        self._holder = holder

    def register(self, slots: int, engine: EngineProfile | None = None, device: str = "") -> None:
        """Enter the worker, what its engine can do, and on which type of device; waits for a database that is away."""
        values = (self._holder, self._state, slots, engine, device)
        insist(lambda: self._db.run(work.register, *values), self._beat, grace_seconds=0)

    def ready(self, announce: Callable[[], None], then: Callable[[], None]) -> None:
        """The engine answers: say for which names calls may come, that slices may come, and then do this."""
        self._thread.submit(self._ready, announce, then)

    def orders_changed(self) -> None:
        """An operator's order changes how it stands."""
        self._thread.submit(self._tell_standing)

    def restarting(self) -> None:
        """The engine is about to be restarted: nothing is dispatched to this worker until it is back."""
        self._thread.submit(self._lose_engine, None)

    def dead(self, reason: str, trouble: EngineTrouble | None) -> None:
        """The engine is gone: nothing is dispatched to this worker until it is back; perhaps it does not start."""
        log.error("engine_died", model=self._holder.model, reason=reason)
        self._thread.submit(self._dead, trouble)

    @property
    def holds(self) -> bool:
        """Nothing of it has to be waited for."""
        return False

    def drain(self) -> None:
        """The worker ends: nothing new comes."""
        self._thread.submit(self._tell, "draining")

    def goodbye(self) -> None:
        """The worker is gone; tried once."""
        say_goodbye(self._db, self._holder, self._settings)

    def _ready(self, announce: Callable[[], None], then: Callable[[], None]) -> None:
        try:
            with suppress(Unavailable):
                insist(announce, self._beat, grace_seconds=0)
            self._was_ready = self._works = True
            self._trouble = None
            self._tell_standing()
            then()
        except Exception:
            log.exception("status_untold")

    def _dead(self, trouble: EngineTrouble | None) -> None:
        self._lose_engine(trouble)
        with suppress(Unavailable):  # what counts has been said
            self._db.run(work.count, "engine_death", about=str(self._holder.id))
        if trouble and trouble.final and not self._was_ready:
            self._give_up(trouble)

    def _lose_engine(self, trouble: EngineTrouble | None) -> None:
        self._works, self._trouble = False, trouble
        self._tell_standing()

    @property
    def _state(self) -> str:
        if not self._works:
            return "starting"
        return "drained" if self._beat.drained else "ready"

    def _tell_standing(self) -> None:
        self._tell(self._state, self._trouble)

    def _tell(self, state: str, trouble: EngineTrouble | None = None) -> None:
        """Repeat until the database heard it, or the worker ends."""

        def mark() -> None:
            self._db.run(work.mark, self._holder, state, self._settings, trouble)

        if self._beat.draining and state != "draining":
            return
        with suppress(Unavailable):
            insist(mark, self._beat, grace_seconds=0)
