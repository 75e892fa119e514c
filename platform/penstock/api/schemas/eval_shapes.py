"""What evals, runs and comparisons look like on the wire: OpenAI's names where they fit. Unset fields are null."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from penstock.api.schemas.shapes import time, unix
from penstock.domain.evals.comparison import Comparison
from penstock.domain.evals.run import Eval, RunBatch, RunState, RunView

Status = Literal["preparing", "running", "scoring", "embedding", "completed", "failed", "cancelled"]


class EvalShape(BaseModel):
    """What answers are measured by."""

    id: str
    object: Literal["eval"] = "eval"
    name: str
    scorers: list[dict[str, Any]] = Field(description="As they were made.")
    input_file_id: str | None
    endpoint: str | None
    reference_file_id: str | None
    created_at: int
    run_count: int
    metadata: dict[str, str] | None


class DeletedEval(BaseModel):
    """Confirms a deletion."""

    object: Literal["eval.deleted"] = "eval.deleted"
    deleted: bool = True
    eval_id: str


class DeletedRun(BaseModel):
    """Confirms a deletion."""

    object: Literal["eval.run.deleted"] = "eval.run.deleted"
    deleted: bool = True
    run_id: str


class RunError(BaseModel):
    """Why a run, or a comparison, failed."""

    code: str
    message: str


class ResultCounts(BaseModel):
    """Lines. A line has passed if all scorers say so, and errored if one could say nothing."""

    total: int
    passed: int
    failed: int
    errored: int


class ScoreShape(BaseModel):
    """What one scorer found."""

    name: str
    type: Literal["exact", "regex", "json_schema", "similarity"]
    lines: int = Field(
        description="That it scored. A line that the model failed to answer scores 0; one that was never asked (the "
        "batch was cancelled or expired), or of which nothing is expected, is in `errors`."
    )
    mean: float | None
    low: float | None = Field(
        description="The 95 % interval of the mean: Wilson's where scores are 0 or 1, else by bootstrap (BCa)."
    )
    high: float | None
    passed: int
    failed: int
    errors: int


class RunBatchShape(BaseModel):
    """What its answers took."""

    id: str
    status: str
    lines: int
    done: int = Field(description="Lines that are answered or failed.")
    input_tokens: int
    output_tokens: int
    gpu_seconds: float
    cost: str | None = Field(description="By the prices of tokens and GPU-seconds, exactly; null without prices.")
    currency: str | None
    seconds: float | None = Field(description="From the turn of its first line to its last answer; null before.")


class RunShape(BaseModel):
    """One batch's answers, scored."""

    id: str
    object: Literal["eval.run"] = "eval.run"
    eval_id: str
    name: str
    model: str | None = Field(description="What was asked; null if a batch is scored as it is.")
    status: Status = Field(
        description="`preparing` (references are checked, the batch is made) → `running` (the batch is answered) → "
        "`scoring` → `completed`; with a scorer of the type `similarity`, `embedding` comes before that."
    )
    created_at: int
    ended_at: int | None
    scored: int = Field(description="Lines that are scored so far.")
    batch: RunBatchShape | None = Field(description="Null before it is made, and once it is deleted.")
    batch_id: str | None
    embeddings_batch_id: str | None
    result_counts: ResultCounts | None = Field(description="Null before it is completed; so are the next two.")
    scores: list[ScoreShape] | None
    result_file_id: str | None = Field(
        description="JSONL in the order of the custom_ids (as bytes): "
        "`{custom_id, passed, scores: [{name, score, passed, reason}]}`."
    )
    error: RunError | None = Field(description="Of a failed one.")
    set: dict[str, Any] | None
    metadata: dict[str, str] | None


class ComparedScores(BaseModel):
    """One scorer, over the lines that it scored in both runs."""

    name: str
    lines: int
    better: int = Field(description="Lines whose score is higher in the candidate.")
    worse: int
    same: int
    baseline_mean: float | None
    candidate_mean: float | None
    difference: float | None = Field(description="Candidate less baseline.")
    low: float | None = Field(description="The 95 % interval of the difference.")
    high: float | None
    verdict: Literal["better", "worse", "no_difference_shown"] = Field(
        description="Of the candidate: `better` or `worse` if the interval does not hold 0, and six lines or more "
        "differ. With several scorers each is at 95 % for itself."
    )


class PairedLines(BaseModel):
    """Lines by custom_id."""

    paired: int
    only_baseline: int
    only_candidate: int


class ComparisonShape(BaseModel):
    """Two runs, line by line."""

    id: str
    object: Literal["eval.comparison"] = "eval.comparison"
    eval_id: str
    baseline_run_id: str
    candidate_run_id: str
    status: Literal["comparing", "completed", "failed"]
    created_at: int
    ended_at: int | None
    lines: PairedLines | None = Field(description="Null before it is completed; so is `scores`.")
    scores: list[ComparedScores] | None
    method: str = Field(description="How the intervals are made.")
    baseline: RunBatchShape | None = Field(description="What the baseline's answers took; null once it is deleted.")
    candidate: RunBatchShape | None
    error: RunError | None


_METHOD = "paired by custom_id; bootstrap over lines, BCa, 95 %, 10,000 resamples, fixed seed"


def eval_(one: Eval) -> EvalShape:
    """An eval's shape."""
    return EvalShape(
        id=one.id,
        name=one.name,
        scorers=[scorer.as_json() for scorer in one.scorers],
        input_file_id=one.input_file,
        endpoint=one.endpoint,
        reference_file_id=one.reference_file,
        created_at=unix(one.created_at),
        run_count=one.runs,
        metadata=one.metadata or None,
    )


def run(view: RunView) -> RunShape:
    """A run's shape."""
    one, outcome = view.run, view.run.outcome
    counts = None if outcome is None else {name: outcome[name] for name in ResultCounts.model_fields}
    return RunShape(
        id=one.id,
        eval_id=one.eval,
        name=one.name,
        model=one.terms.model,
        status=one.state.value,
        created_at=unix(one.created_at),
        ended_at=time(one.ended_at),
        scored=one.scored,
        batch=_batch(view.batch),
        batch_id=one.batch,
        embeddings_batch_id=one.embeddings,
        result_counts=None if counts is None else ResultCounts(**counts),
        scores=None if outcome is None else [ScoreShape(**score) for score in outcome["scores"]],
        result_file_id=one.result_file if one.state is RunState.COMPLETED else None,
        error=None if one.error is None else RunError(**one.error),
        set=dict(one.terms.changes) or None,
        metadata=one.metadata or None,
    )


def _batch(one: RunBatch | None) -> RunBatchShape | None:
    if one is None:
        return None
    return RunBatchShape(
        id=one.id,
        status=one.status,
        lines=one.total,
        done=one.done,
        input_tokens=one.input_tokens,
        output_tokens=one.output_tokens,
        gpu_seconds=one.gpu_seconds,
        cost=one.cost,
        currency=one.currency,
        seconds=one.seconds,
    )


def comparison(one: Comparison, baseline: RunView, candidate: RunView) -> ComparisonShape:
    """A comparison's shape, with what both runs took."""
    outcome = one.outcome
    return ComparisonShape(
        id=one.id,
        eval_id=one.eval,
        baseline_run_id=one.baseline,
        candidate_run_id=one.candidate,
        status=one.state.value,
        created_at=unix(one.created_at),
        ended_at=time(one.ended_at),
        lines=None if outcome is None else PairedLines(**outcome["lines"]),
        scores=None if outcome is None else [ComparedScores(**score) for score in outcome["scores"]],
        method=_METHOD,
        baseline=_batch(baseline.batch),
        candidate=_batch(candidate.batch),
        error=None if one.error is None else RunError(**one.error),
    )
