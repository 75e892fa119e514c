"""A launch: what the supervisor needs to know to start one engine, wherever it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from penstock.domain.engines.profile import EngineProfile

if TYPE_CHECKING:  # it reads models' files, which whoever only asks for a word of a launch need not load
    from penstock_worker.engine.token_counter import TokenCounter

# A path in a socket address is at most 108 bytes with its closing NUL.
MAX_SOCKET_PATH_BYTES: Final = 107
FINAL_STATUS: Final = 78
"""The exit status (sysexits' EX_CONFIG) of what would end alike at each start, whatever its last line says."""


class BadLaunch(ValueError):
    """An engine can't be started like this."""


@dataclass(frozen=True)
class Launch:
    """One way to start an engine that speaks the OpenAI HTTP API on a unix socket."""

    profile: EngineProfile
    """What this start of it can do: its kind's, but for what the user's arguments turn off."""
    model: str
    """The name that it serves; readiness means that /v1/models lists it."""
    command: tuple[str, ...]
    environment: Mapping[str, str]
    """The whole environment, not an addition to ours."""
    socket: Path
    batch_slots: int
    """n: how many batch lines may be in flight at first."""
    engine_slots: int
    """What the engine was told: n, the room for waiting calls, and the overtakers'."""
    start_timeout_seconds: float
    overtakers: int = 0
    """How many batch lines may be in flight beyond n for a while, ahead of those that go behind them."""
    build: str = ""
    """Its version."""
    adapters: int = 0
    """How many adapters it holds at once, loaded while it runs; 0: none."""
    most_adapter_rank: int = 0
    others_load: bool = False
    """Somebody else may load adapters, too: what it answers can change while it runs."""
    gpus: int = 1
    """What one second of it is charged as, in GPU-seconds; a CPU counts as one."""
    token_counter: TokenCounter | None = field(default=None, compare=False)
    """Counts texts' tokens as it does; None: nobody here can."""

    @property
    def health_path(self) -> str:
        """Where its socket says that it can work; what leads to an engine elsewhere has asked that one, wherever."""
        return "/health" if self.profile.is_elsewhere else self.profile.health_paths[0]

    @property
    def lists_models(self) -> bool:
        """Whether its socket lists what it serves; what leads to an engine elsewhere always does."""
        return self.profile.is_elsewhere or self.profile.lists_models


_MOST_OVERTAKERS: Final = 64


@dataclass(frozen=True)
class Slots:
    """How the sequences of an engine are parted."""

    lines: int
    """n, for batch lines."""
    calls: int
    """Kept free for waiting calls. Measured: two turn a call's first token from 1.9 s into 0.1 s."""
    overtakers: int
    """For a small job behind a large one: else its lines come in one by one, as the large one's end."""

    @property
    def all(self) -> int:
        """What the engine is started with; room costs no throughput."""
        return self.lines + self.calls + self.overtakers


def slots_for(lines: int, most: int | None = None) -> Slots:
    """Room above n batch lines: an eighth for waiting calls, half of them (64 at most) for overtakers."""
    most = 2 * lines + 2 if most is None else max(most, 1)
    lines = min(lines, most)
    calls = min(max(2, lines // 8), most - lines)
    return Slots(lines, calls, min(_MOST_OVERTAKERS, lines // 2, most - lines - calls))


def slots_within(all: int) -> Slots:
    """The same for an engine that was told by others how much it takes, and has no order of its own that we could set:
    an eighth of its room is for waiting calls, and nobody overtakes, since in the engine all go alike.
    """
    calls = min(max(1, all // 8), all - 1)
    return Slots(all - calls, calls, 0)


def option(arguments: Sequence[str], name: str) -> str | None:
    """The value of an option in a user's argument list, the last one if it stands there twice.

    Knows `--max-num-seqs 64`, `--max-num-seqs=64` and underscores for hyphens, as vLLM's parser does.
    """
    value = None
    for place, argument in enumerate(arguments):
        flag, equals, attached = argument.partition("=")
        if flag.replace("_", "-") != name:
            continue
        if equals:
            value = attached
        elif place + 1 < len(arguments):
            value = arguments[place + 1]
        else:
            raise BadLaunch(f"{name} needs a value.")
    return value


def has_flag(arguments: Sequence[str], *names: str) -> bool:
    """True if one of these options stands in a user's argument list, with or without a value."""
    return any(argument.partition("=")[0].replace("_", "-") in names for argument in arguments)


def number(arguments: Sequence[str], name: str) -> int | None:
    """An option's value as a positive number; vLLM's suffixes are known (2k = 2,000, 2K = 2,048)."""
    text = option(arguments, name)
    if text is None:
        return None
    factor = {"k": 1_000, "K": 1_024, "m": 1_000_000, "M": 1_048_576}.get(text[-1:], 1)
    digits = text if factor == 1 else text[:-1]
    if not digits.isdecimal() or not int(digits):
        raise BadLaunch(f"{name} must be a positive number, not {text!r}.")
    return int(digits) * factor


def without(arguments: Sequence[str], *names: str) -> list[str]:
    """An argument list with some options and their values taken out."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        if skip:
            skip = False
        elif flag.replace("_", "-") in names:
            skip = not equals
        else:
            kept.append(argument)
    return kept


def check_socket(socket: Path) -> None:
    """Refuse a socket path that the kernel would cut."""
    length = len(str(socket).encode())
    if length > MAX_SOCKET_PATH_BYTES:
        raise BadLaunch(
            f"The socket path {socket} has {length} bytes; at most {MAX_SOCKET_PATH_BYTES} work. "
            "Choose a shorter runtime folder (PENSTOCK_RUNTIME_DIR)."
        )


def engine_environment(environ: Mapping[str, str], source: str) -> dict[str, str]:
    """Our environment without our own settings, and without credentials of an object store that its model is not in.

    An engine runs a model's code, and needs neither our database nor our blobs.
    """
    ours = ("PENSTOCK_",) if "://" in source else ("PENSTOCK_", "AWS_", "AZURE_", "GOOGLE_")
    return {name: value for name, value in environ.items() if not name.startswith(ours)}
