"""Leases: the right to work on a batch, and what a beat says about each that is held."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.domain.work.batch import BatchState


@dataclass(frozen=True)
class BatchLease:
    """The right to validate or assemble one batch; `attempt` counts from 1."""

    lease: int
    attempt: int


@dataclass(frozen=True)
class LeaseOrder:
    """What a beat says about one lease: it is kept (and its batch may be closing), or it was forgotten."""

    lease: int
    named: bool
    closing: BatchState | None
