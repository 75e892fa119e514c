"""Measuring: what settled slices teach about a model's lines, for the estimates of those that come."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from penstock.service.core.transaction import Transaction
from penstock.store.fleet import models

EVERY: Final = timedelta(seconds=15)
WITHIN: Final = timedelta(hours=1)
MOST_SLICES: Final = 500
"""Some hours of one worker; enough that one odd batch does not decide, few enough to read in some milliseconds."""


def measure(tx: Transaction) -> int:
    """Look at the models of which slices settled since the last look, each at most every 15 s; how many were due."""
    return len(models.measure(tx.conn, every=EVERY, within=WITHIN, most=MOST_SLICES))
