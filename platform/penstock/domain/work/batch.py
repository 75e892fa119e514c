"""Batches: their states, how a state may change, and the values that a batch carries."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple

from penstock.domain.accounts.cost import Cost, Savings
from penstock.domain.accounts.tokens import Usage
from penstock.domain.api_errors import BadRequest
from penstock.domain.work.lane import Lane
from penstock.domain.work.retry import Retry
from penstock.domain.work.terms import OnInvalid


class BatchState(StrEnum):
    """OpenAI's batch statuses, and `paused`, which OpenAI clients see as in_progress."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FAILED = "failed"


class PauseReason(StrEnum):
    """Why a batch is paused."""

    BY_HAND = "by_hand"
    """Its tenant said so."""
    BUDGET = "budget"
    """Its tenant's budget of this month is spent: it goes on with the next one, or a larger one."""


MOVES: Final = {
    BatchState.VALIDATING: {
        BatchState.IN_PROGRESS,
        BatchState.FAILED,
        BatchState.CANCELLING,
        BatchState.FINALIZING,
    },
    BatchState.IN_PROGRESS: {BatchState.PAUSED, BatchState.CANCELLING, BatchState.FINALIZING},
    BatchState.PAUSED: {BatchState.IN_PROGRESS, BatchState.CANCELLING, BatchState.FINALIZING},
    BatchState.CANCELLING: {BatchState.FINALIZING},
    BatchState.FINALIZING: {
        BatchState.COMPLETED,
        BatchState.CANCELLED,
        BatchState.EXPIRED,
        BatchState.FAILED,
    },
    BatchState.COMPLETED: set(),
    BatchState.CANCELLED: set(),
    BatchState.EXPIRED: set(),
    BatchState.FAILED: set(),
}

TERMINAL: Final = frozenset(state for state, becomes in MOVES.items() if not becomes)


@dataclass(frozen=True)
class LineError:
    """Why validation refuses a line (or, with `line` null, the whole file)."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


@dataclass(frozen=True)
class BatchEnd:
    """How a batch ends, and the files that hold its results; of a retry also those laid over its parent's."""

    state: BatchState
    output_file: str | None = None
    error_file: str | None = None
    merged_output_file: str | None = None
    merged_error_file: str | None = None
    trace_file: str | None = None
    errors: Sequence[LineError] = ()
    """The first of them."""
    error_count: int = 0
    """How many there were in all."""


@dataclass(frozen=True)
class Batch:
    """One batch or job, as its row says. Times are UTC; counts are live sums until it ends, then frozen."""

    id: str
    tenant: str
    kind: str
    """`batch` (a file) or `job` (lines that came in the request)."""
    inline: bool
    """True if lines and answers are in rows: no files, no io tasks."""
    state: BatchState
    finish_as: BatchState | None
    endpoint: str
    model: str | None
    lane: Lane
    completion_window: str
    created_at: datetime
    deadline: datetime
    in_progress_at: datetime | None = None
    finalizing_at: datetime | None = None
    completed_at: datetime | None = None
    failed_at: datetime | None = None
    expired_at: datetime | None = None
    cancelling_at: datetime | None = None
    cancelled_at: datetime | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    input_file: str | None = None
    input_key: str | None = None
    output_file: str | None = None
    error_file: str | None = None
    trace_file: str | None = None
    output_expires_seconds: int | None = None
    plan_key: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    usage: Usage = field(default_factory=Usage)
    dedup: bool = True
    """Equal lines that have one answer are asked once."""
    plan: bool = True
    """Lines are asked in the order that costs the engine least; else in file order."""
    on_invalid: OnInvalid = OnInvalid.FAIL
    """What it does about lines that validation refuses."""
    trace: bool = False
    """What each member of an ensemble said goes to a file of its own."""
    default_model: str | None = None
    """What lines ask that name no model."""
    versions: Mapping[str, Sequence[int]] | None = None
    """The versions that it is pinned to, by what its lines ask; several where some of it was pinned anew."""
    cache: str | None = None
    """What its lines do with the shared cache (a CacheMode); None: what its tenant has chosen."""
    cache_ttl_seconds: int | None = None
    cost: Cost = field(default_factory=Cost)
    savings: Savings | None = None
    """What caches and equal lines spared it; None until it is planned, and if it ended before that was kept."""
    currency: str | None = None
    """Of all prices; None if there is none."""
    empty: int = 0
    """Of `completed`: answers that say nothing, since max_tokens ran out before."""
    empty_lines: tuple[int, ...] = ()
    """The first few of those, by line number."""
    errors: tuple[dict[str, Any], ...] = ()
    error_count: int = 0
    allowed_models: Sequence[str] | None = None
    """What its maker's key may ask; None: every model."""
    parent: str | None = None
    """The batch of which it repeats lines."""
    root: str | None = None
    """Where the chain of parents begins."""
    repeats: Retry | None = None
    merged_output_file: str | None = None
    merged_error_file: str | None = None
    """Every line of the root once: as this batch ended it, else as its parent did."""
    paused_as: PauseReason | None = None

    @property
    def ended(self) -> bool:
        """True once the batch can't change any more."""
        return self.state in TERMINAL


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


_WINDOW = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_UNIT_SECONDS = {"m": 60, "h": 3600, "d": 86_400}


def parse_window(text: str, max_seconds: int) -> timedelta:
    """Read a completion window such as `24h`, `90m` or `7d`; raise BadRequest if it is none or too long."""
    match = _WINDOW.fullmatch(text)
    if not match:
        raise BadRequest(
            f"completion_window must be like '24h', '90m' or '7d', not {text[:40]!r}.", param="completion_window"
        )
    seconds = int(match[1]) * _UNIT_SECONDS[match[2]]
    if seconds > max_seconds:
        raise BadRequest(
            f"completion_window must be at most {max_seconds // 86_400}d, not {text!r}.", param="completion_window"
        )
    return timedelta(seconds=seconds)
