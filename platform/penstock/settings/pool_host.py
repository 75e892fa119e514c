"""The pool host: how often it looks, and how long each step of a switch may take."""

from __future__ import annotations

from pydantic import Field

from penstock.settings.concern import Concern


class PoolHostSettings(Concern):
    """Times of switches, and what may sleep."""

    pool_look_seconds: float = Field(1.0, gt=0, description="A pool host decides this often which versions are awake.")
    pool_leave_seconds: float = Field(
        60.0,
        gt=0,
        description="A version that leaves its place has so long to give back what it holds; then it is killed.",
    )
    pool_memory_seconds: float = Field(
        15.0,
        ge=0,
        description="After that the next one waits so long for GPU memory to be free, where that can be read.",
    )
    pool_start_seconds: float = Field(
        1_800.0, gt=0, description="A version that comes has so long to be ready, its download included."
    )
    pool_probe_seconds: float = Field(60.0, gt=0, description="It has so long to answer a request for one token.")
    pool_sleep_seconds: float = Field(60.0, gt=0, description="An engine has so long to fall asleep, or to wake up.")
    pool_asleep: int = Field(
        1,
        ge=0,
        description="So many engines that can sleep stay asleep on a pool's host, their weights in memory; 0: none.",
    )
    pool_sleep_frees: float = Field(
        0.5, ge=0, le=1, description="An engine that frees less of its device memory than this by sleeping is ended."
    )
