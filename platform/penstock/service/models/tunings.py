"""Tunings: what `penstock tune` measured, kept for estimates, pools and people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from penstock.domain.models.tuning import Tuning
from penstock.service.core import audit
from penstock.service.core.transaction import Transaction
from penstock.service.models import versions
from penstock.store.models import tunings

_MOST_CHARACTERS: Final = 1_000


def record(tx: Transaction, points: Sequence[Tuning]) -> None:
    """Keep the points of one tuning: of one model, engine and device. Raises BadRequest for what can't be kept."""
    for one in points:
        versions.check(one.model, one.definition)
    first = points[0]
    tunings.forget_choice(tx.conn, first.model, first.definition.engine, first.device)
    for one in points:
        tunings.put(tx.conn, one)
    target = first.model[:_MOST_CHARACTERS]
    audit.record(tx, audit.NOBODY, "model.tuned", target, device=first.device, points=len(points))
