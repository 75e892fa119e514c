"""Shapes: what files, batches, jobs, models and lists look like on the wire. Unset fields are null, never absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from penstock.api.schemas import outlook_shapes, saved_shapes
from penstock.api.schemas.outlook_shapes import ExpectedShape, WaitingShape
from penstock.api.schemas.saved_shapes import SavedShape
from penstock.domain.accounts.cost import Cost
from penstock.domain.accounts.price import money
from penstock.domain.accounts.tokens import Usage
from penstock.domain.fleet.model import Model
from penstock.domain.inference_endpoints import token_limits
from penstock.domain.models.version import label
from penstock.domain.webhook import Endpoint
from penstock.domain.work.batch import Batch, BatchState, PauseReason
from penstock.service.views.batch_view import BatchView

T = TypeVar("T", bound=BaseModel)


class DeletedBatch(BaseModel):
    """Confirms a deletion."""

    id: str
    object: Literal["batch", "job"]
    deleted: bool = True


class BatchErrorShape(BaseModel):
    """Why validation refuses a line, or (with `line` null) the whole file."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrors(BaseModel):
    """The first errors, in the order of lines; `total` counts all of them."""

    object: Literal["list"] = "list"
    data: list[BatchErrorShape]
    total: int


class RequestCounts(BaseModel):
    """Lines: all of them, those answered with 2xx, and those that failed in any way."""

    total: int
    completed: int
    failed: int


class InputDetails(BaseModel):
    """Of the input tokens."""

    cached_tokens: int


class OutputDetails(BaseModel):
    """Of the output tokens."""

    reasoning_tokens: int
    reused_tokens: int = Field(description="Of answers that were there already: of an equal line, or from the cache.")


class UsageShape(BaseModel):
    """Tokens that the engine counted for the lines that are answered so far."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class CostShape(BaseModel):
    """What the recorded lines cost, exactly: amounts are decimal numbers as text."""

    currency: str
    tokens: str = Field(description="By the price of tokens; cached input has its own, reused output costs nothing.")
    gpu: str = Field(description="By the price of a GPU-second.")
    gpu_seconds: float = Field(description="Engine wall time by GPUs, shared out by tokens.")


class WarningShape(BaseModel):
    """What may be wrong with answers that count as answered."""

    code: Literal["empty_answers"] = Field(
        description="`empty_answers`: the limit on tokens ran out before a word was said. `/retry` asks again."
    )
    message: str
    count: int
    lines: list[int] = Field(description="The first few, by their line in the input.")


class CacheShape(BaseModel):
    """What the lines of a batch or job do with the shared cache, as its create said."""

    mode: Literal["on", "off", "refresh"]
    ttl_seconds: int | None = Field(description="How long its answers are kept; null: the platform's default.")


class WebhookShape(BaseModel):
    """Where the events of one batch or job go."""

    id: str = Field(description="An endpoint of `/v1/webhook_endpoints/{id}`, to change, rotate or delete it.")
    url: str
    events: list[str]
    secret: str | None = Field(description="In the answer to the create, if it was made there; never again.")


class _Common(BaseModel):
    id: str
    object: str
    endpoint: str
    model: str | None = Field(description="Null until it is known, and where lines name different models.")
    versions: dict[str, list[str]] | None = Field(
        description='The versions that it is pinned to, by what its lines ask, e.g. `{"chat": ["v2"]}`; two where '
        "unstarted work was pinned anew. Null until it is planned, and where a model has no version yet."
    )
    errors: BatchErrors | None = Field(description="What validation found, of a failed one.")
    input_file_id: str | None
    completion_window: str
    status: str
    output_file_id: str | None = Field(description="Null as long as there is none, and if no line was answered.")
    error_file_id: str | None = Field(description="Null as long as there is none, and if no line failed.")
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: UsageShape
    cost: CostShape | None = Field(description="Of the lines that are recorded so far; null without any price.")
    saved: SavedShape | None = Field(
        description="What caches and equal lines spared of that; null until it is planned, and of one that ended "
        "before Penstock kept it."
    )
    metadata: dict[str, str] | None
    lane: Literal["priority", "standard", "flex"]
    paused: bool = Field(description="Paused by `/pause` or a spent budget: its status is `in_progress` then.")
    pause_reason: Literal["by_hand", "budget"] | None = Field(description="Why it is paused; null if it is not.")
    waiting: WaitingShape | None = Field(description="Why it makes no progress, if so.")
    expected: ExpectedShape | None = Field(description="While it is in progress; null before and after.")
    warnings: list[WarningShape] | None = Field(description="So far; null if there is nothing to warn of.")
    parent_batch_id: str | None = Field(description="What it repeats lines of, if `/retry` made it.")
    children: list[str] | None = Field(description="What repeats lines of it, oldest first; null in lists.")
    merged_output_file_id: str | None = Field(
        description="Of a retry that has ended: the answers of all lines where the chain of parents begins, its own "
        "among them, in the order of that input."
    )
    merged_error_file_id: str | None = Field(description="The lines of those that have no answer yet.")
    trace_file_id: str | None = Field(
        description="What each member of an ensemble said, if it was made with `trace` and has ended."
    )
    dedup: bool = Field(description="Whether equal lines that have one answer are asked once.")
    plan: bool = Field(description="Whether lines are asked in the order that costs the engine least, not the file's.")
    on_invalid: Literal["fail", "skip"] = Field(description="What it does about lines that validation refuses.")
    cache: CacheShape | None = Field(description="Null: what its tenant has chosen.")
    webhook: WebhookShape | None = Field(description="Its own, if it was made with one; always null in lists.")


class BatchShape(_Common):
    """A batch, with every field of OpenAI's; from `lane` on they are ours."""

    object: Literal["batch"] = "batch"


class JobShape(_Common):
    """A job: a batch whose requests came in the body. A small one brings its results along once it has ended."""

    object: Literal["job"] = "job"
    results: list[dict[str, Any]] | None = Field(
        default=None,
        description="Output lines `{id, custom_id, response, error}` in the order of the requests, once it has ended; "
        "null before, in lists, and of a large job, whose results are in its files.",
    )


class Page(BaseModel, Generic[T]):
    """One page of a list."""

    object: Literal["list"] = "list"
    data: list[T]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ModelShape(BaseModel):
    """A model that batches and jobs may name."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "penstock"
    live_workers: int = Field(description="Workers that serve it now; with none, its work waits.")
    engines: list[str] = Field(description="The profiles of their engines: `vllm`, `remote` and so on.")
    lacks: list[str] = Field(
        description="What one of these engines can't do, and the platform does without: `priority`, `abort`, `metrics`,"
        " `tokenizer`, `request_ids`, `cache_salt`."
    )
    ttft_p95_ms: int | None = Field(description="Time to first token that batch work leaves to waiting calls, if set.")
    itl_p95_ms: int | None = Field(description="The same for the time between tokens.")


class ModelList(BaseModel):
    """All known models."""

    object: Literal["list"] = "list"
    data: list[ModelShape]


def batch(view: BatchView) -> BatchShape:
    """A batch's shape."""
    return BatchShape(**_common(view))


def job(view: BatchView) -> JobShape:
    """A job's shape, without its results: those are spliced in as the bytes that were recorded."""
    return JobShape(**_common(view))


def is_paused(one: Batch) -> bool:
    """Whether nothing of it is started."""
    return one.state is BatchState.PAUSED


def status(one: Batch) -> str:
    """Its state as OpenAI's clients know it: they know no pause."""
    return str(BatchState.IN_PROGRESS if is_paused(one) else one.state)


def page(data: Sequence[T], limit: int, of: type[T], empty: str | None = None) -> Page[T]:
    """A page from one more object than it may hold; `empty` stands for the ids of an empty one."""
    shown = list(data[:limit])
    ids = [getattr(one, "id", None) for one in shown]
    return Page[of](  # type: ignore[valid-type] # a model made for its type
        data=shown,
        first_id=ids[0] if ids else empty,
        last_id=ids[-1] if ids else empty,
        has_more=len(data) > limit,
    )


def model(one: Model) -> ModelShape:
    """A model's shape."""
    return ModelShape(
        id=one.name,
        created=unix(one.created_at),
        live_workers=one.workers,
        engines=list(one.engines),
        lacks=list(one.lacks),
        ttft_p95_ms=one.ttft_p95_ms,
        itl_p95_ms=one.itl_p95_ms,
    )


def _versions(pinned: Mapping[str, Sequence[int]] | None) -> dict[str, list[str]] | None:
    return {asked: [label(number) for number in numbers] for asked, numbers in pinned.items()} if pinned else None


def _common(view: BatchView) -> dict[str, Any]:
    one = view.batch
    paused = is_paused(one)
    errors = [BatchErrorShape(**error) for error in one.errors]
    return {
        "id": one.id,
        "endpoint": one.endpoint,
        "model": one.model,
        "versions": _versions(one.versions),
        "errors": BatchErrors(data=errors, total=one.error_count) if errors else None,
        "input_file_id": one.input_file,
        "completion_window": one.completion_window,
        "status": status(one),
        "output_file_id": one.output_file,
        "error_file_id": one.error_file,
        "created_at": unix(one.created_at),
        "in_progress_at": time(one.in_progress_at),
        "expires_at": unix(one.deadline),
        "finalizing_at": time(one.finalizing_at),
        "completed_at": time(one.completed_at),
        "failed_at": time(one.failed_at),
        "expired_at": time(one.expired_at),
        "cancelling_at": time(one.cancelling_at),
        "cancelled_at": time(one.cancelled_at),
        "request_counts": RequestCounts(total=one.total, completed=one.completed, failed=one.failed),
        "usage": usage(one.usage),
        "cost": cost(one.cost, one.currency),
        "saved": saved_shapes.saved(one),
        "metadata": one.metadata or None,
        "lane": str(one.lane),
        "paused": paused,
        "pause_reason": (one.paused_as or PauseReason.BY_HAND) if paused else None,
        "waiting": outlook_shapes.waiting(view.waiting) if view.waiting else None,
        "expected": outlook_shapes.expected(view.expected) if view.expected else None,
        "warnings": _warnings(one),
        "parent_batch_id": one.parent,
        "children": None if view.children is None else list(view.children),
        "merged_output_file_id": one.merged_output_file,
        "merged_error_file_id": one.merged_error_file,
        "trace_file_id": one.trace_file,
        "dedup": one.dedup,
        "plan": one.plan,
        "on_invalid": one.on_invalid.value,
        "cache": CacheShape(mode=one.cache, ttl_seconds=one.cache_ttl_seconds) if one.cache else None,
        "webhook": _webhook(view.webhook, view.secret) if view.webhook else None,
    }


def _warnings(one: Batch) -> list[WarningShape] | None:
    if not one.empty:
        return None
    some = "1 answer is" if one.empty == 1 else f"{one.empty:,} answers are"
    name = " or ".join(token_limits(one.endpoint))
    message = f"{some} empty because {name} ran out, on thoughts for instance; retry with a larger one."
    return [WarningShape(code="empty_answers", message=message, count=one.empty, lines=list(one.empty_lines))]


def _webhook(one: Endpoint, secret: str | None) -> WebhookShape:
    return WebhookShape(id=one.id, url=one.url, events=list(one.event_types), secret=secret)


def usage(one: Usage) -> UsageShape:
    """Tokens as they are told."""
    return UsageShape(
        input_tokens=one.input_tokens,
        input_tokens_details=InputDetails(cached_tokens=one.cached_tokens),
        output_tokens=one.output_tokens,
        output_tokens_details=OutputDetails(
            reasoning_tokens=one.reasoning_tokens, reused_tokens=one.reused_output_tokens
        ),
        total_tokens=one.total_tokens,
    )


def cost(one: Cost, currency: str | None) -> CostShape | None:
    """A cost as it is told."""
    if currency is None:
        return None
    seconds = one.gpu_microseconds / 1_000_000
    return CostShape(currency=currency, tokens=money(one.tokens), gpu=money(one.gpu), gpu_seconds=seconds)


def unix(time: datetime) -> int:
    """Unix seconds."""
    return int(time.timestamp())


def time(moment: datetime | None) -> int | None:
    """Unix seconds, or nothing."""
    return None if moment is None else unix(moment)
