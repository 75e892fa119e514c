"""Recovery: what went wrong lately and was mended, or given up: how often in all, and the newest with their times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.domain.counted import COUNTED, INCIDENTS
from penstock.service.core.transaction import Transaction
from penstock.store.work import call_suspects, counts, incidents, suspects
from penstock.store.work.call_suspects import CallSuspect
from penstock.store.work.incidents import Incident
from penstock.store.work.suspects import LineSuspect


@dataclass(frozen=True)
class Recovered:
    """One kind of incident."""

    name: str
    words: str
    times: int
    """Since the platform was set up."""
    newest: tuple[Incident, ...]
    """Newest first; those of the last week are known."""


@dataclass(frozen=True)
class Recovery:
    """All kinds, and who is suspected now."""

    kinds: tuple[Recovered, ...]
    lines: tuple[LineSuspect, ...]
    """Lines that were in flight when engines died, of batches whose pieces are still there."""
    calls: tuple[CallSuspect, ...]
    """Waiting calls likewise, the latest first; by hashes only."""


def look(tx: Transaction, limit: int) -> Recovery:
    """Everything, at most so many of each kind; four statements, each bounded by `limit` and an index."""
    times: Mapping[str, int] = counts.read(tx.conn)
    newest = incidents.newest(tx.conn, INCIDENTS, limit=limit)
    kinds = tuple(
        Recovered(name, COUNTED[name], times.get(name, 0), tuple(one for one in newest if one.name == name))
        for name in INCIDENTS
    )
    return Recovery(
        kinds,
        tuple(suspects.newest(tx.conn, limit=limit)),
        tuple(call_suspects.newest(tx.conn, limit=limit)),
    )
