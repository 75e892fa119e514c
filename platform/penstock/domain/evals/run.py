"""Runs: one batch's answers, scored. Evals: what a run is measured by. The database holds the same moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from penstock.domain.evals.scorer import Scorer


class RunState(StrEnum):
    """How far a run is."""

    PREPARING = "preparing"
    """Its references are checked and its batch is made: an io worker's work."""
    RUNNING = "running"
    """Its batch is answered."""
    SCORING = "scoring"
    """Its answers are scored: an io worker's work."""
    EMBEDDING = "embedding"
    """A second batch embeds answers and expectations; then it is scored."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


MOVES: Final = {
    RunState.PREPARING: {RunState.RUNNING, RunState.SCORING, RunState.FAILED, RunState.CANCELLED},
    RunState.RUNNING: {RunState.SCORING, RunState.CANCELLED},
    RunState.SCORING: {RunState.EMBEDDING, RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED},
    RunState.EMBEDDING: {RunState.SCORING, RunState.CANCELLED},
    RunState.COMPLETED: set(),
    RunState.FAILED: set(),
    RunState.CANCELLED: set(),
}
ENDED: Final = frozenset(state for state, becomes in MOVES.items() if not becomes)
RUN_PREFIX: Final = "evalrun_"


class RunFailed(Exception):
    """A run can't be scored, and trying again would change nothing."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)


@dataclass(frozen=True)
class Eval:
    """What runs are measured by, and what they ask. Times are UTC."""

    id: str
    tenant: str
    name: str
    scorers: tuple[Scorer, ...]
    created_at: datetime
    input_file: str | None = None
    """What a run of a model asks; None: only batches that have ended are scored."""
    endpoint: str | None = None
    reference_file: str | None = None
    """`{custom_id, expected}` a line; None: each line of the input says what it expects."""
    metadata: dict[str, str] = field(default_factory=dict)
    runs: int = 0
    """How many there are of it."""


@dataclass(frozen=True)
class RunTerms:
    """What a run asks of whom, how urgently, and until when."""

    model: str | None = None
    batch: str | None = None
    """One that has ended, to be scored as it is; then there is no model."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Merged shallowly into each body."""
    lane: str = "standard"
    completion_window: str = "24h"
    allowed_models: frozenset[str] | None = None
    """What its maker's key may ask."""
    api_key: str | None = None
    """The id of its maker's key, for whom its batches count; None: nobody's."""


@dataclass(frozen=True)
class EvalRun:
    """One run. Times are UTC."""

    id: str
    tenant: str
    eval: str
    name: str
    state: RunState
    terms: RunTerms
    created_at: datetime
    batch: str | None = None
    """Its own once it is made, or the one that is scored."""
    embeddings: str | None = None
    """The batch that embeds."""
    scored: int = 0
    """Lines so far."""
    outcome: Mapping[str, Any] | None = None
    """Of a completed one: counts, and what each scorer found."""
    result_file: str | None = None
    error: Mapping[str, str] | None = None
    """Of a failed one: code and message."""
    ended_at: datetime | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def owns_batch(self) -> bool:
        """Whether its batch was made for it."""
        return self.terms.batch is None

    @property
    def ended(self) -> bool:
        """True once it can't change any more."""
        return self.state in ENDED


@dataclass(frozen=True)
class EvalWork:
    """One claim of an io worker: what it holds, and the lease that its writes name."""

    id: str
    lease: int
    attempt: int


@dataclass(frozen=True)
class RunBatch:
    """What is said of a run's batch beside its scores."""

    id: str
    status: str
    total: int
    done: int
    """Lines that are answered or failed."""
    input_tokens: int
    output_tokens: int
    gpu_seconds: float
    cost: str | None
    """Tokens and GPU together, exactly; None without prices."""
    currency: str | None
    seconds: float | None
    """From its first line's turn to its last answer; None before."""


@dataclass(frozen=True)
class RunView:
    """A run as its caller sees it."""

    run: EvalRun
    batch: RunBatch | None
