"""Connections: the most that one process of a kind opens at Postgres, so that a server can be made large enough."""

from __future__ import annotations

from typing import Final

from penstock.domain.work.lane import SLICE_PLACES

KEEPER: Final = 3
IO_TASKS: Final = 6
"""Two tasks at a time, the beat, and whoever else asks."""
IO_SENDER: Final = 2
"""Webhooks."""
GPU: Final = SLICE_PLACES + 5
"""For each slice in work, the beat, the status, the load report, and one for whoever else asks."""
OF_KIND: Final = {"keeper": KEEPER, "io": IO_TASKS + IO_SENDER, "gpu": GPU}
"""By the kind of a registered process; an API's are a setting."""
