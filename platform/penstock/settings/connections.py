"""Connections: how many to Postgres each process may open, and how many all of them need room for."""

from __future__ import annotations

from typing import Final

from penstock.domain.work.lane import SLICE_PLACES
from penstock.settings.servers import ServerSettings

KEEPER: Final = 3
"""Its ticks, the sweep and erasures."""
IO_TASKS: Final = 2
IO_POOL: Final = 2 * IO_TASKS + 2
WEBHOOK_SENDER: Final = 2
"""In an io worker, beside its pool."""
IO: Final = IO_POOL + WEBHOOK_SENDER
GPU: Final = SLICE_PLACES + 5
"""One for each slice in work, the beat, the status, the load report, and two for whoever else asks."""
POOL: Final = 3
"""A pool's host, beside its members: its loop, the beat, the status."""
OF_KIND: Final = {"keeper": KEEPER, "io": IO, "gpu": GPU}
"""By the kind of a registered process that each platform has; an API's are a setting."""
COMMANDS: Final = 3
"""For people: `penstock migrate`, `penstock keys` and the like."""


def needed(
    settings: ServerSettings, *, apis: int = 1, keepers: int = 1, ios: int = 1, gpus: int = 1, hosts: int = 0
) -> int:
    """The most connections that so many processes have open, and some for commands.

    `gpus` are those that run at once, members of pools among them; `hosts` are hosts of pools.
    Postgres keeps a few of its `max_connections` for superusers (`superuser_reserved_connections`): these come on top.
    """
    return apis * settings.api_connections + keepers * KEEPER + ios * IO + gpus * GPU + hosts * POOL + COMMANDS
