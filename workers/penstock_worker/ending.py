"""Ending: a SIGTERM is heard from the first claim on, also before Celery listens to it.

Celery takes a second or more to start, and slices may be in work by then. A SIGTERM that nobody handles would end the
process with them in hand: they would wait for their leases to run out, and a crash would be counted.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, Final

_LOOK_SECONDS: Final = 0.05


def listen(on_ending: Callable[[], None]) -> None:
    """Until somebody else handles SIGTERM: call `on_ending` at once, and send it again as soon as somebody does."""

    def handle(*_: Any) -> None:
        # In a thread: a handler runs in the middle of anything, even of something that holds a lock.
        threading.Thread(target=pass_on, name="ending", daemon=True).start()

    def pass_on() -> None:
        on_ending()
        while signal.getsignal(signal.SIGTERM) is handle:
            time.sleep(_LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, handle)
