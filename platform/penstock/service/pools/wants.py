"""Wants: waiting calls that want a version that is not awake."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from penstock.service.core.transaction import Transaction
from penstock.store.pools import wants


def note(tx: Transaction, process: UUID, waited: Mapping[str, float]) -> None:
    """Say all that an API process wants: how many seconds its oldest call has waited, by queue; nothing: no more.

    It holds for five seconds: whoever goes on waiting says so again.
    """
    wants.note(tx.conn, process, waited)


def forget(tx: Transaction) -> None:
    """Delete the wants of processes that are gone."""
    wants.forget(tx.conn)
