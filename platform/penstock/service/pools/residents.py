"""Residents: a host says what is on it; what is learnt of a version is kept when it is put away."""

from __future__ import annotations

from uuid import UUID

from penstock.domain.pools.pool import PUT_AWAY, ResidentState
from penstock.service.core.transaction import Transaction
from penstock.store.pools import decisions, residents


def put(tx: Transaction, host: UUID, queue: str, state: ResidentState | str, member: UUID | None = None) -> None:
    """Say how a version is on a host, and which worker it is there. May be repeated.

    One that is put away (asleep, stopped) keeps its member only if that is named again.
    """
    state = ResidentState(state)
    if state in PUT_AWAY:
        residents.put_away(tx.conn, host, queue)
    residents.put(tx.conn, host, queue, state, member)
    if state is ResidentState.AWAKE:
        residents.awake(tx.conn, host, queue)


def gone(tx: Transaction, host: UUID) -> None:
    """A host ends: nothing is on it, and what it left open has failed."""
    residents.gone(tx.conn, host)
    decisions.end_of_host(tx.conn, host)
