"""The load report: says every second how loaded this worker is, and hears what its model's callers were promised.

A thread with a connection of its own. Nobody waits for it: while Postgres is away, routers keep their last table for a
while, and the gate its last objective. When the ingress opens or shuts, that is said at once: a router learns of it
with its next look.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

import structlog

from penstock.domain.api_errors import Unavailable
from penstock.domain.calls.ingress import Load, Slo
from penstock.domain.work.holder import Holder
from penstock.service.calls import ingresses
from penstock.service.core.transaction import Database

log = structlog.get_logger()


class Promised(Protocol):
    """Who keeps what was promised."""

    slo: Slo


class LoadReport:
    """A thread that reports the load, from `with` to its end. `load` is asked in that thread."""

    def __init__(
        self, db: Database, holder: Holder, load: Callable[[], Load], promised: Promised, load_report_seconds: float
    ) -> None:
        self._db = db
        self._holder = holder
        self._load = load
        self._promised = promised
        self._pulse_seconds = load_report_seconds
        self._now = threading.Event()
        self._stop = False
        self._heard = True
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def __enter__(self) -> LoadReport:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._now.set()
        self._thread.join()

    def at_once(self) -> None:
        """Something has changed that routers should know: pulse now."""
        self._now.set()

    def once(self) -> None:
        """Report now, in this thread; raise Unavailable."""
        self._promised.slo = self._db.run(ingresses.pulse, self._holder, self._load())

    def _run(self) -> None:
        while not self._stop:
            try:
                self.once()
                self._heard = True
            except Unavailable as error:
                if self._heard:  # the beat tells the rest of the story
                    log.warning("pulse_unheard", error=error.message)
                self._heard = False
            except Exception:
                log.exception("pulse_failed")
            self._now.wait(self._pulse_seconds)
            self._now.clear()
