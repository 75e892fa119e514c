"""Counters of the echo engine: what its health, model and metrics pages show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock_worker.engine.echo.answers import Voice


@dataclass
class Counters:
    """What happened since the start, and what the command line says is to be shown."""

    voice: Voice
    names: Sequence[str]
    """The model, then its adapters."""
    kv_usage: float
    preemptions: int
    running: int = 0
    waiting: int = 0
    answered: int = 0
    aborted: int = 0
    core_lives: bool = True
    device_memory_bytes: float = 0.0

    @property
    def model(self) -> str:
        """The name that it answers to."""
        return self.voice.model
