"""The models that the project makes: what they are called, how they are made and served on this processor.

Served in bfloat16 as they are stored, or in float32 where that is emulated. Measured on a processor with AVX2 alone:
vLLM computes bfloat16 three to six times slower than float32 there, since without AVX512-BF16 or AMX each product is
converted first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from penstock.domain.engines.profile import EngineSource
from penstock.stack.problem import Problem

MODELS: Final = {"tiny": "penstock_worker.engine.tiny", "tiny-embed": "penstock_worker.engine.tiny_embed"}
"""The module that makes each: one that writes, and one that embeds."""
_GGUF: Final = {"tiny": "penstock_worker.engine.tiny_gguf"}
_COMPUTE_BFLOAT16: Final = frozenset({"avx512_bf16", "amx_bf16"})
_CPU_INFO: Final = Path("/proc/cpuinfo")


def place(name: str, source: EngineSource, models: Path) -> Path:
    """Where such a model is made, for engines that load this kind of source. Raises Problem if it is not made so."""
    if source is not EngineSource.GGUF or name not in MODELS:
        return models / name
    if name not in _GGUF:
        raise Problem(f"`{name}` is no GGUF file, and this engine reads nothing else: leave --engine out.")
    return models / f"{name}.gguf"


def is_made(place: Path) -> bool:
    """Whether it is there."""
    return place.is_file() or (place / "config.json").exists()


def command(name: str, place: Path) -> list[str]:
    """What makes it there; a GGUF is made of the model beside it."""
    if place.suffix == ".gguf":
        return [sys.executable, "-m", _GGUF[name], str(place.with_suffix("")), str(place)]
    return [sys.executable, "-m", MODELS[name], str(place)]


def computes_bfloat16(cpu_info: str) -> bool:
    """Whether the processor that this text (of /proc/cpuinfo) describes has instructions for bfloat16."""
    flags = next((line for line in cpu_info.splitlines() if line.startswith("flags")), "")
    return not _COMPUTE_BFLOAT16.isdisjoint(flags.split())


def dtype_arguments(given: Sequence[str], cpu_info: str | None = None) -> tuple[str, ...]:
    """What vLLM on CPUs is told beside the arguments that were given; nothing if they choose a dtype themselves."""
    chosen = any(argument.partition("=")[0] == "--dtype" for argument in given)
    if chosen or computes_bfloat16(_CPU_INFO.read_text() if cpu_info is None else cpu_info):
        return ()
    return ("--dtype=float32",)
