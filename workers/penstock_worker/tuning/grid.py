"""The grid: which values of which arguments are tried, one argument after the other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from penstock.domain.engines.profile import Knob
from penstock_worker.engine.launch_spec import BadLaunch, Launch, option, without

OWN: Final = "own"
"""A value: the argument is left out, and the engine does what it does by itself."""
_NAME: Final = re.compile(r"-{0,2}([a-z][a-z0-9_-]*)", re.ASCII)
_MOST_VALUES: Final = 16
_ALIASES: Final = {
    "--tensor-parallel-size": ("-tp",),
    "--pipeline-parallel-size": ("-pp",),
    "--quantization": ("-q",),
    "--parallel": ("-np", "--max-num-seqs"),
}
_STEP_TOKENS: Final = {"--max-num-batched-tokens": ("2048", "4096", "8192"), "--cb-max-batch-tokens": ("512", "1024")}
_STEP_TOKENS_OF_GPUS: Final = ("16384",)
_GPU_MEMORY: Final = ("0.85", "0.92", "0.95")


@dataclass(frozen=True)
class Coordinate:
    """One argument, and the values of it that are tried."""

    flag: str
    values: tuple[str, ...]

    def turned(self, arguments: tuple[str, ...], value: str) -> tuple[str, ...]:
        """An engine's arguments with this one set so; what has that value already is the same as before."""
        names = (self.flag, *_ALIASES.get(self.flag, ()))
        if value == self.set_to(arguments):
            return arguments
        rest = tuple(without(arguments, *names))
        return rest if value == OWN else (*rest, f"{self.flag}={value}")

    def set_to(self, arguments: Sequence[str]) -> str:
        """Its value in an engine's arguments."""
        for name in (self.flag, *_ALIASES.get(self.flag, ())):
            if (value := option(arguments, name)) is not None:
                return value
        return OWN


def read(text: str) -> Coordinate:
    """`max-num-seqs=64,128,256`, or with `own` for what the engine does unless told. Raises BadLaunch."""
    name, _, listed = text.partition("=")
    values = tuple(dict.fromkeys(value.strip() for value in listed.split(",") if value.strip()))
    named = _NAME.fullmatch(name)
    if not named or not values:
        raise BadLaunch(f"--grid takes ARGUMENT=VALUE,VALUE,…, as max-num-seqs=64,128, not {text[:100]!r}.")
    if len(values) > _MOST_VALUES:
        raise BadLaunch(f"--grid {named[1]} has {len(values)} values; at most {_MOST_VALUES} are tried.")
    return Coordinate("--" + named[1].replace("_", "-"), values)


def usual(base: Launch, own: Launch, gpus: int) -> tuple[Coordinate, ...]:
    """What is tried unless told: what the engine's profile says is worth it.

    `base` is started as the user says, `own` without any say in how many sequences it works on; `gpus` is how many it
    may have, 0 on a CPU.
    """
    found = (Coordinate(flag, _values(knob, flag, base, own, gpus)) for knob, flag in base.profile.knobs)
    return tuple(one for one in found if one.values)


def sequences_flag(launch: Launch) -> str | None:
    """The argument that says how many sequences it works on."""
    return dict(launch.profile.knobs).get(Knob.SEQUENCES)


def _values(knob: Knob, flag: str, base: Launch, own: Launch, gpus: int) -> tuple[str, ...]:
    match knob:
        case Knob.SEQUENCES:
            n = own.batch_slots
            around = {max(1, n // 2), n, 2 * n} - {base.batch_slots}
            return tuple(str(one) for one in sorted(around))
        case Knob.STEP_TOKENS:
            return _STEP_TOKENS[flag] + (_STEP_TOKENS_OF_GPUS if gpus else ())
        case Knob.GPUS:
            return tuple(str(2**power) for power in range(gpus.bit_length())) if gpus > 1 else ()
        case Knob.GPU_MEMORY:
            return _GPU_MEMORY if gpus else ()
