"""Versions: a model as it is started, once and for all; what changes makes another version.

draft    added by an operator, and no worker has served it yet
ready    a worker has served it
retired  nobody may ask it any more
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

STABLE: Final = "stable"
"""The alias that a plain name stands for."""
_LABEL: Final = re.compile(r"v([1-9][0-9]{0,8})", re.ASCII)
_SECRET: Final = re.compile(r"key|token|secret|password", re.IGNORECASE)
HIDDEN: Final = "…"
"""What stands for a secret that is not kept."""


class VersionState(StrEnum):
    """How far a version's life is."""

    DRAFT = "draft"
    READY = "ready"
    RETIRED = "retired"


MOVES: Final = {
    VersionState.DRAFT: {VersionState.READY, VersionState.RETIRED},
    VersionState.READY: {VersionState.RETIRED},
    VersionState.RETIRED: set(),
}


@dataclass(frozen=True)
class Definition:
    """What is started: it never changes within a version."""

    source: str
    """A local folder or file, a Hugging Face id, or the address of a remote engine."""
    engine: str
    """Its engine profile, by name."""
    arguments: tuple[str, ...] = ()
    """The operator's own, for the engine; what looks like a secret is not kept."""
    base: str | None = None
    """Of an adapter: the queue of the version that it hangs on, which has the engine."""


@dataclass(frozen=True)
class Version:
    """One version of a model."""

    model: str
    number: int
    queue: str
    """The name under which its work is dealt out: the plain name for the first version, else `name@v2`. An adapter's
    work goes to its base's queue, and says this name."""
    definition: Definition
    digest: str | None
    """What makes its answers its own, as a worker's engine has it; None until one has served it."""
    state: VersionState
    registered: bool
    """A worker that started with it made it; else an operator did."""
    created_at: datetime
    ready_at: datetime | None = None
    retired_at: datetime | None = None

    @property
    def label(self) -> str:
        """As people and answers say it."""
        return label(self.number)

    @property
    def served_as(self) -> str:
        """The queue whose workers do its work: its own, or an adapter's base's."""
        return self.definition.base or self.queue

    @property
    def name(self) -> str:
        """As a request names it."""
        return f"{self.model}@{self.label}"


def label(number: int) -> str:
    """A version's number as people say it: v3."""
    return f"v{number}"


def number_of(label: str) -> int | None:
    """The reverse; None for what is no version's label."""
    found = _LABEL.fullmatch(label)
    return int(found[1]) if found else None


def queue_of(model: str, number: int) -> str:
    """The name under which a version's work is dealt out."""
    return model if number == 1 else f"{model}@{label(number)}"


def has_password(source: str) -> bool:
    """Whether a source is an address that holds somebody's name or password."""
    _, given, rest = source.partition("://")
    return bool(given) and "@" in re.split(r"[/?#]", rest, maxsplit=1)[0]


def without_secrets(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """An engine's arguments with the values hidden of those that look like secrets."""
    told: list[str] = []
    hide = False
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        if hide and not argument.startswith("--"):
            told.append(HIDDEN)
        elif argument.startswith("--") and _SECRET.search(flag):
            told.append(f"{flag}={HIDDEN}" if equals else argument)
        else:
            told.append(argument)
        hide = argument.startswith("--") and not equals and bool(_SECRET.search(flag))
    return tuple(told)
