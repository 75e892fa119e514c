"""What a worker does with one slice, a transaction each: a lease that is lost is an exception here."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.domain.api_errors import LeaseLost
from penstock.domain.work.slice import Claim
from penstock.formats.output import Record
from penstock.service.core.transaction import Transaction
from penstock.service.lifecycle import work


def flush(
    tx: Transaction,
    claim: Claim,
    seq: int,
    records: Sequence[Record],
    blob_key: str | None = None,
    gpu_microseconds: int = 0,
) -> None:
    """Record answers of a slice."""
    if work.record(tx, [work.SliceAnswers(claim, seq, records, blob_key, gpu_microseconds)], []):
        raise LeaseLost


def settle(tx: Transaction, claim: Claim) -> None:
    """End a slice."""
    if work.record(tx, [], [claim]):
        raise LeaseLost


def crash(tx: Transaction, claim: Claim, in_flight: Sequence[int]) -> None:
    """Give a slice back after its engine died with these lines."""
    work.give_back(tx, [(claim, in_flight)])
