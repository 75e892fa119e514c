"""The poller: a worker that hears nothing asks Postgres itself, so the platform runs, slower, with Redis away.

It shares slots, leases and limits with the hints; it only asks when no hint was heard for a while, so that in good
times every slice is a Celery task that Flower shows.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from penstock.domain.api_errors import Unavailable

log = structlog.get_logger()


class Poller:
    """Asks for work from threads of its own, from `with` to its end.

    `look` does one piece of work if there is any, and says whether there was. `places` of them run at once.
    """

    def __init__(
        self,
        look: Callable[[], bool],
        *,
        places: int,
        poll_seconds: float,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._places = places
        self._poll_seconds = poll_seconds
        self._chance = chance
        self._clock = clock
        self._heard_at = clock()
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(places, thread_name_prefix="poller")

    def __enter__(self) -> Poller:
        for _ in range(self._places):
            self._threads.submit(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._threads.shutdown(wait=True)

    def heard(self) -> None:
        """A hint came: Redis and Celery are at work."""
        self._heard_at = self._clock()

    def stop(self) -> None:
        """Ask no more; what is being worked on goes on."""
        self._stop.set()

    def _run(self) -> None:
        # Jittered, so that the workers of a fleet that lost Redis do not ask in step.
        while not self._stop.wait(self._poll_seconds * (0.5 + self._chance())):
            try:
                while self._is_quiet() and not self._stop.is_set() and self._look():
                    pass
            except Unavailable as error:
                log.warning("poll_unheard", error=error.message)
            except Exception:
                log.exception("poll_failed")

    def _is_quiet(self) -> bool:
        return self._clock() - self._heard_at >= self._poll_seconds
