"""Idle yield: where cores are few, the engine's processes sleep while they wait for each other, instead of spinning.

vLLM's scheduler and its workers pass steps through shared memory, and whoever waits there calls `os.sched_yield` in a
loop (vllm/distributed/device_communicators/shm_broadcast.py). On two cores that loop takes all that is left of the
second one from the server, the feeder and the database beside it, and at times brings the intake of requests to a crawl
of one after the other for seconds. So the scheduler takes 24 % of a core instead of 85, and a file of unique
lines runs as fast as `vllm run-batch` does (bench-batch, row A: 0.8 to 0.95 before).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Final

from penstock_worker.engine.launch_spec import BadLaunch

VARIABLE: Final = "PENSTOCK_ENGINE_IDLE_YIELD_SECONDS"
_SECONDS: Final = 0.000_05
"""Short beside a step (milliseconds), long beside a yield (a third of a microsecond)."""
_MOST_SECONDS: Final = 0.01
_OTHERS: Final = 4
"""Cores for who works beside an engine: its HTTP server, the gpu worker, Postgres and its clients, the API."""


def environment(environ: Mapping[str, str], parts: int, cores: int | None = None) -> dict[str, str]:
    """What an engine's environment gets, whose model is spread over so many devices; nothing where cores suffice.

    A part's process and the scheduler spin: on cores of their own that costs nobody anything, and wins a few
    microseconds a step. An operator's own word stands, 0 for never; raises BadLaunch if it is no number of seconds.
    """
    if said := environ.get(VARIABLE):
        if not 0.0 <= _seconds(said) <= _MOST_SECONDS:
            raise BadLaunch(f"{VARIABLE} must be a number of seconds from 0 to {_MOST_SECONDS}, not {said!r}.")
        return {VARIABLE: said}
    there = len(os.sched_getaffinity(0)) if cores is None else cores
    return {VARIABLE: f"{_SECONDS:f}"} if there < parts + 1 + _OTHERS else {}


def _seconds(said: str) -> float:
    try:
        return float(said)
    except ValueError:
        return -1.0


def register() -> None:
    """Sleep instead of yielding, in a process that was told to."""
    if seconds := float(os.environ.get(VARIABLE) or 0.0):
        os.sched_yield = lambda: time.sleep(seconds)
