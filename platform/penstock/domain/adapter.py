"""Adapters: LoRA weights that are a version of their own, and hang on a version that is their base.

What asks for an adapter is the base's work: it waits in the base's queue, and one of the base's workers loads the
adapter when it is first asked there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Adapter:
    """What a request needs beside its base's engine."""

    id: str
    """The name of its own that each version has: `sql` for the first one, else `sql@v2`."""
    digest: str | None
    """A hash of its files and its base; None until somebody who sees the files has made it."""


@dataclass(frozen=True, slots=True)
class AdapterSource:
    """What a worker must know to load one."""

    id: str
    source: str
    base: str
    digest: str | None

    def engine_name(self, digest: str) -> str:
        """What engines call it: another name for each version, whose answers and cache are never another's."""
        return f"{self.id.partition('@')[0]}@{digest[:_SHOWN]}"


class AdapterFault(Exception):
    """An adapter can't be used. The message is one line for whoever asked."""


def revision_with(engine: str, adapter: Adapter | None) -> str:
    """What makes answers its own: the engine's revision, and the adapter's digest; empty if one is not known."""
    if adapter is None or not engine:
        return engine
    return f"{engine}+{adapter.digest}" if adapter.digest else ""
