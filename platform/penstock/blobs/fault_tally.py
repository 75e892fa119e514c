"""The fault tally: how often this process met faults of the blob store, by kind, until somebody writes them down."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Literal

Fault = Literal["away", "full", "missing", "short"]

_lock = threading.Lock()
_faults = Counter[str]()


def note(fault: Fault) -> None:
    """A request to the store met this."""
    with _lock:
        _faults[fault] += 1


def take() -> Counter[str]:
    """What was noted since it was taken last."""
    with _lock:
        taken = Counter(_faults)
        _faults.clear()
    return taken


def put_back(taken: Mapping[str, int]) -> None:
    """What was taken could not be written down."""
    with _lock:
        _faults.update(taken)
