"""A batch filter: which batches or jobs a list or a bulk action is about; all that is given must hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from penstock.domain.api_errors import BadRequest
from penstock.domain.work.batch import BatchState
from penstock.domain.work.lane import Lane

MOST_PAIRS: Final = 16
"""Of metadata: as many as a batch can have."""


@dataclass(frozen=True)
class BatchFilter:
    """What is None or empty is not asked about."""

    states: frozenset[BatchState] = frozenset()
    lane: Lane | None = None
    model: str | None = None
    """The batch's own; one whose lines name several models has none."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    created_after: datetime | None = None
    """At this time or later."""
    created_before: datetime | None = None
    """Earlier than this."""


def read_states(names: Iterable[str], param: str = "status") -> frozenset[BatchState]:
    """States by the names of statuses: `in_progress` has the paused ones, as a batch's status has; raise BadRequest."""
    found: set[BatchState] = set()
    for name in names:
        try:
            found.add(BatchState(name))
        except ValueError:
            raise BadRequest(f"A status is one of {', '.join(BatchState)}, not {name[:40]!r}.", param=param) from None
    if BatchState.IN_PROGRESS in found:
        found.add(BatchState.PAUSED)
    return frozenset(found)


def check_metadata(pairs: Mapping[str, str], param: str = "metadata") -> Mapping[str, str]:
    """The same pairs; raise BadRequest for more, or longer ones, than a batch can have."""
    if len(pairs) > MOST_PAIRS or any(len(key) > 64 or len(value) > 512 for key, value in pairs.items()):
        raise BadRequest(f"At most {MOST_PAIRS} pairs of 64 and 512 characters.", param=param)
    if any("\0" in text for pair in pairs.items() for text in pair):
        raise BadRequest("A pair holds a NUL character.", param=param)
    return pairs
