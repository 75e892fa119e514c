"""Patience: the same call is repeated under the same key while a server is away; nobody knows if it happened."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar

import structlog

from penstock.domain.api_errors import LeaseLost, NoSpace, Unavailable
from penstock_worker.runtime.beat import Beat, Grip

log = structlog.get_logger()
R = TypeVar("R")

_PAUSE_SECONDS: Final = 0.5
_NEWS_SECONDS: Final = 10.0
"""A server that stays away is a line in the log this often."""


def insist(call: Callable[[], R], beat: Beat, grace_seconds: float, grip: Grip | None = None) -> R:
    """Repeat a call while the database is away or a disk full. It must be one that may be repeated.

    Raises LeaseLost once the beat hears that the lease is gone, and what the call raised last once the process ends
    and its grace is over: the lease is reaped then.
    """
    pause, waited_seconds = threading.Event(), 0.0
    while True:
        try:
            return call()
        except (Unavailable, NoSpace) as error:
            if waited_seconds % _NEWS_SECONDS == 0:
                log.warning("waiting", error=error.message)
            if grip is not None and grip.lost:
                raise LeaseLost from error
            if beat.draining and waited_seconds > grace_seconds:
                raise
            pause.wait(_PAUSE_SECONDS)
            waited_seconds += _PAUSE_SECONDS
