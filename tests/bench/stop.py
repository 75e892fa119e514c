"""Stopping: a benchmark that is told to end (SIGTERM, SIGHUP, SIGINT) ends what it started, and leaves nothing behind.

Python dies of SIGTERM at once: no `finally` runs, no engine is ended. Here it is what Ctrl-C is, once.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Final

STOPPED: Final = 130
"""The exit status of a benchmark that was stopped."""


def orderly(main: Callable[[], None]) -> None:
    """Run a benchmark's main function; whatever stops it, its `with` and `finally` see to their ends."""
    # A shell that starts something in the background has it ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        main()
    except KeyboardInterrupt:
        print("[bench] stopped", file=sys.stderr, flush=True)
        sys.exit(STOPPED)


def _interrupt(number: int, frame: object) -> None:
    """The first signal ends it; another one would only keep it from ending well."""
    for one in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    signal.raise_signal(signal.SIGINT)
