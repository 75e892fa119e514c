"""The engine: when it counts as hung, what it is charged as, how full it may be."""

from __future__ import annotations

from pydantic import Field

from penstock.settings.concern import Concern


class EngineSettings(Concern):
    """One worker's engine."""

    engine_stuck_seconds: float = Field(
        120.0, gt=0, description="An engine with requests in it that makes no step for this long is hung, and replaced."
    )
    engine_gpus: int = Field(
        0, description="GPUs that a second of the engine is charged as; 0: tensor × pipeline × data parallel size."
    )
    budget_seconds: float = Field(
        1.0, gt=0, description="The budget of batch lines in the engine is looked at this often."
    )
    steady_refill: bool = Field(
        True,
        description="While waiting calls are present batch lines enter the engine a few at a time, however many ended "
        "together; otherwise as soon as others have left.",
    )
    kv_high: float = Field(0.9, gt=0, le=1, description="Part of the KV cache above which the batch budget shrinks.")
