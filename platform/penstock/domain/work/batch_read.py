"""Batch reads: a batch or job as its caller names it, and as its caller sees it."""

from __future__ import annotations

from typing import NamedTuple

from penstock.domain.work.batch import Batch


class BatchRead(NamedTuple):
    """A batch with live counts, and what there is beside it."""

    batch: Batch
    children: tuple[str, ...]
    """The first batches that repeat lines of it, oldest first."""
    has_webhook: bool
    """Whether it has, or had, a webhook of its own."""


class BatchKey(NamedTuple):
    """A batch or job as a caller names it."""

    tenant: str
    kind: str
    id: str
