"""The interpreter that the engines of both sides run in, and which vLLM it has.

PENSTOCK_ENGINE_PYTHON names it, as it does for a worker; else it is this one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cache

from penstock.stack import tiny_model
from penstock_worker.engine.vllm import vllm_server


def python() -> str:
    """Its path."""
    return os.environ.get("PENSTOCK_ENGINE_PYTHON") or sys.executable


@cache
def build() -> tuple[str, bool]:
    """The version of its vLLM, and whether it has Penstock, too. Raises BadLaunch if it has no vLLM."""
    return vllm_server.build(python(), os.environ)


def on_cpu() -> bool:
    """Whether its vLLM computes on the CPU."""
    return os.environ.get("VLLM_TARGET_DEVICE") == "cpu" or "cpu" in build()[0]


def dtype_arguments(given: Sequence[str]) -> tuple[str, ...]:
    """What the engines are told beside the arguments that were given: float32, on a CPU that emulates bfloat16."""
    return tiny_model.dtype_arguments(given) if on_cpu() else ()
