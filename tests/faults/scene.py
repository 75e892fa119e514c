"""A scene of `make faults`: which house is struck, by which nemesis, and what must be true of it at the end besides.

`PLAIN` has three gpu workers of one model. `POOL` has two hosts of one pool with a place each, which four versions
share: two of them can sleep.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from faults import pool_ends
from faults.house import MODEL, House
from faults.house_pool import HousePool
from faults.nemesis import KINDS, LEASE_SECONDS, OF_FOLDS, Nemesis
from faults.panels import Panel, panels
from faults.pool_nemesis import POOL_KINDS, PoolNemesis

_ENGINE: Final = ("--latency-ms=150", "--jitter=0.5", "--max-num-seqs=16")
_SETTINGS: Final = {
    "lease_seconds": str(LEASE_SECONDS),
    "beat_seconds": "1",
    "worker_gone_seconds": "6",
    "close_grace_seconds": "2",
    "hint_again_seconds": "2",
    "poll_seconds": "1",
    "slice_lines": "64",
    "engine_stuck_seconds": "10",
    "log_level": "info",
}
_OF_HOSTS: Final = {
    "pool_look_seconds": "0.5",
    "pool_leave_seconds": "15",
    "pool_start_seconds": "60",
    "pool_probe_seconds": "10",
    "pool_sleep_seconds": "10",
}
_TERMS: Final = {"awake": 1, "linger_seconds": 0.0, "least_quantum_seconds": 1.0, "share_lost": 0.5}
_SLEEPS: Final = {"a": False, "b": False, "c": True, "d": True}
"""By model."""


@dataclass(frozen=True)
class Scene:
    """One of them."""

    models: tuple[str, ...]
    proxied: tuple[str, ...]
    """Processes that reach Postgres through a network that can be broken."""
    kinds: Mapping[str, int]
    nemesis: Callable[..., Nemesis]
    parts: Callable[[Path], dict[str, Any]]
    """What the house has, and whose engines write this journal."""
    settings: Mapping[str, str]
    end: Callable[[House], list[str]] = lambda house: []
    """End what is the scene's own, once all is checked; what is wrong then."""
    notes: Callable[[House], Counter[str]] = field(default=lambda house: Counter())
    """What else happened, for people."""
    panels: tuple[Panel, ...] = ()
    """Ensembles that are there beside the models."""

    @property
    def with_panels(self) -> Scene:
        """The same, with ensembles of its models; io workers, which fold, are struck more."""
        return replace(self, panels=panels(self.models), kinds={**self.kinds, **OF_FOLDS})


def _gpu_workers(journal: Path) -> dict[str, Any]:
    return {"gpus": 3, "engine_arguments": [*_ENGINE, f"--journal={journal}"]}


def _hosts(journal: Path) -> dict[str, Any]:
    engine = [*_ENGINE, f"--journal={journal}"]
    members = {model: [*engine, *["--enable-sleep-mode"] * sleeps] for model, sleeps in _SLEEPS.items()}
    return {"gpus": 0, "pool": HousePool(members, _TERMS, hosts=2)}


PLAIN: Final = Scene((MODEL,), ("api-1", "keeper-1", "io-1", "gpu-1", "gpu-2"), KINDS, Nemesis, _gpu_workers, _SETTINGS)
POOL: Final = Scene(
    tuple(_SLEEPS),
    ("api-1", "keeper-1", "io-1", "host-1"),
    POOL_KINDS,
    PoolNemesis,
    _hosts,
    _SETTINGS | _OF_HOSTS,
    pool_ends.end,
    pool_ends.notes,
)
