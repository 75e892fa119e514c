"""How the tiny model is served on this processor: in bfloat16 as it is stored, or in float32 where that is emulated.

Measured on a processor with AVX2 alone: vLLM computes bfloat16 three to six times slower than float32 there, since
without AVX512-BF16 or AMX each product is converted first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

_COMPUTE_BFLOAT16: Final = frozenset({"avx512_bf16", "amx_bf16"})
_CPU_INFO: Final = Path("/proc/cpuinfo")


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
