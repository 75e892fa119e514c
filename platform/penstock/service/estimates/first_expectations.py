"""First expectations: what is expected of a batch as soon as anything can be, kept to be compared with its end."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from penstock.service.core.transaction import Transaction
from penstock.service.estimates import outlook
from penstock.settings import Settings
from penstock.store.batches import first_expectations

_YOUNG: Final = timedelta(minutes=10)
"""Of a batch that nobody can say anything of for so long, nothing is compared."""


def say(tx: Transaction, settings: Settings) -> int:
    """Keep what is expected of batches that have just begun; of how many."""
    seen = first_expectations.unsaid(tx.conn, young=_YOUNG, gone=timedelta(seconds=settings.worker_gone_seconds))
    if seen.now is None:
        return 0
    found = outlook.of_all(tx, seen, settings)
    expected = {id: one.expected.expected_at for id, one in found.items() if one.expected and one.expected.expected_at}
    return first_expectations.say(tx.conn, seen.now, expected) if expected else 0
