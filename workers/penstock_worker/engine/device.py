"""The device that an engine computes on, by its type: what is measured on one holds for all of its type."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Final

from penstock.domain.engines.profile import EngineSource
from penstock_worker.engine.launch_spec import Launch
from penstock_worker.engine.vllm.vllm_server import gpus

_MOST_CHARACTERS: Final = 200


def of(launch: Launch) -> str:
    """The GPU's name, else the CPU's with its number of cores; empty for an engine that runs elsewhere."""
    if launch.profile.is_elsewhere:
        return ""
    found = gpus() if on_gpus(launch) else ()
    return (found[0][0] if found else cpu())[:_MOST_CHARACTERS]


def here() -> str:
    """What engines compute on here, unless their build says otherwise."""
    found = gpus()
    return (found[0][0] if found else cpu())[:_MOST_CHARACTERS]


def on_gpus(launch: Launch) -> bool:
    """Whether it would compute on GPUs where there are some: not a build for CPUs, and not without weights."""
    is_cpu_build = "cpu" in launch.build or launch.environment.get("VLLM_TARGET_DEVICE") == "cpu"
    return launch.profile.source is not EngineSource.NOTHING and not is_cpu_build


def cpu() -> str:
    """`AMD EPYC 7B13, 2 cores`: those that this process may use."""
    named = _named(Path("/proc/cpuinfo").read_text(errors="replace"))
    cores = len(os.sched_getaffinity(0))
    return f"{named or platform.machine()}, {cores} core{'s' * (cores != 1)}"


def _named(cpuinfo: str) -> str:
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.split())
    return ""
