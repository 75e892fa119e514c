"""The machine: its cards, its interpreter with vLLM, and in one line what a course would miss."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from bench import engine_python, guarded
from bench.gpu.shapes import Shape

from penstock_worker.engine.launch_spec import BadLaunch

_QUERY: Final = ("name", "driver_version", "memory.total", "memory.used")
_BUSY_MIB: Final = 1_024
_ONE: Final = re.compile(r"\d+|GPU-[0-9a-f-]{36}")
"""A card in CUDA_VISIBLE_DEVICES that nvidia-smi knows by the same name."""
_PREFLIGHT_SECONDS: Final = 180.0
"""The first import of torch from a slow disk takes a minute."""


@dataclass(frozen=True)
class Card:
    """One GPU, as nvidia-smi tells it."""

    name: str
    driver: str
    total_mib: int
    used_mib: int


@dataclass(frozen=True)
class Torch:
    """What torch the engines compute with, where that is on a card."""

    torch: str
    cuda: str
    """That it was built for."""
    capability: str
    """Of the card."""


@dataclass(frozen=True)
class Machine:
    """What is there."""

    cards: tuple[Card, ...]
    cores: int
    memory_gib: int
    python: str
    engine_python: str
    vllm: str | None
    """None: there is none; `trouble` says why."""
    has_penstock: bool = False
    """Whether the engine's interpreter has it: its plugin and the direct handler then run in the engine."""
    trouble: str = ""
    torch: Torch | None = None
    """None: it was not asked, or can't use the card; `trouble` says why."""

    @property
    def on_cpu(self) -> bool:
        """Whether its vLLM computes on the CPU."""
        return self.vllm is not None and "cpu" in self.vllm

    def text(self) -> str:
        """In one line."""
        each = (f"{card.name} ({card.total_mib / 1_024:.0f} GiB, driver {card.driver})" for card in self.cards)
        cards = ", ".join(each)
        torch = f", torch {self.torch.torch} for CUDA {self.torch.cuda}" if self.torch else ""
        penstock = "with Penstock" if self.has_penstock else "without Penstock"
        return (
            f"{cards or 'no GPU'}; {self.cores} cores, {self.memory_gib} GiB; Python {self.python}; "
            f"vLLM {self.vllm or 'none'}{torch}, {penstock}, in {self.engine_python}"
        )

    def json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self) | {"cards": [asdict(card) for card in self.cards]}

    def identity(self) -> dict[str, Any]:
        """What may not change between two calls whose figures stand in one table."""
        return {
            "cards": [card.name for card in self.cards],
            "vllm": self.vllm,
            "torch": asdict(self.torch) if self.torch else None,
            "with_penstock": self.has_penstock,
        }


def cards() -> tuple[Card, ...]:
    """The GPUs, or the one that engines see first; none if nvidia-smi is not there."""
    command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if _ONE.fullmatch(first):
        command += ["-i", first]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return read_cards(done.stdout) if done.returncode == 0 else ()


def read_cards(listing: str) -> tuple[Card, ...]:
    """Read nvidia-smi's list; what is not a number there ([N/A]) counts as 0."""
    rows = [[field.strip() for field in line.split(",")] for line in listing.splitlines()]
    return tuple(
        Card(row[0], row[1], *(int(text) if text.isdigit() else 0 for text in row[2:]))
        for row in rows
        if len(row) == len(_QUERY)
    )


def look() -> Machine:
    """Look at all of it."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    try:
        (vllm, has_penstock), trouble = engine_python.build(), ""
    except BadLaunch as error:
        vllm, has_penstock, trouble = None, False, str(error)
    found = Machine(
        cards(), len(os.sched_getaffinity(0)), pages * size // 1_024**3, platform.python_version(),
        engine_python.python(), vllm, has_penstock, trouble,
    )  # fmt: skip
    if not found.cards or vllm is None or found.on_cpu:
        return found
    try:
        return replace(found, torch=preflight())
    except NotUsable as error:
        return replace(found, trouble=str(error))


class NotUsable(RuntimeError):
    """The engines' interpreter can't use the card; the text says why, in one line."""


def preflight() -> Torch:
    """Have the engines' interpreter compute something on the card."""
    command = [engine_python.python(), "-m", "bench.gpu.preflight"]
    environment = guarded.with_benchmarks(os.environ)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PREFLIGHT_SECONDS, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise NotUsable(f"the card could not be used within {_PREFLIGHT_SECONDS:.0f} s, by {command[0]}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        raise NotUsable(f"{command[0]} can't use the card: {said[-1].strip()}")
    return Torch(**json.loads(done.stdout.strip().splitlines()[-1]))


def missing(machine: Machine, shape: Shape) -> str:
    """What is missing for a course of this shape, in one line; empty if nothing is."""
    lacking = []
    if machine.trouble:
        lacking.append(machine.trouble)
    if shape.dummy:
        if not machine.cards:
            lacking.append("no CUDA GPU: nvidia-smi shows none")
        elif machine.cards[0].total_mib < shape.card_gib * 1_024:
            card = machine.cards[0]
            lacking.append(
                f"{card.name} has {card.total_mib / 1_024:.0f} GiB, the shape {shape.name} needs {shape.card_gib:.0f}: "
                "take --shape 1b"
            )
        elif machine.cards[0].used_mib > _BUSY_MIB:
            lacking.append(f"{machine.cards[0].name} is in use: {machine.cards[0].used_mib:,} MiB of it")
        if machine.on_cpu:
            lacking.append(
                f"vLLM {machine.vllm} computes on the CPU: name an interpreter with vLLM for CUDA in "
                "PENSTOCK_ENGINE_PYTHON or --engine-python, or give its wheels with --wheels"
            )
    return "; ".join(lacking)
