"""Retry: failed lines of an ended batch become a batch of their own, which knows its parent."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.domain.api_errors import Conflict, NotFound
from penstock.domain.idempotency import Once
from penstock.domain.reuse import CacheMode
from penstock.domain.webhook import WebhookRequest
from penstock.domain.work.batch import Batch, parse_window
from penstock.domain.work.lane import Lane
from penstock.domain.work.new_batch import NewBatch
from penstock.domain.work.retry import EMPTY, Retry
from penstock.domain.work.terms import Terms
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import Transaction
from penstock.service.intake import creation
from penstock.service.intake.creation import made_before
from penstock.settings.limits import LimitSettings
from penstock.store.batches import batches, files
from penstock.store.work import skipped

NOTHING = "nothing_to_retry"
GONE = "file_gone"


@dataclass(frozen=True)
class RetryRequest:
    """On which terms lines are asked again; None: as the parent's."""

    lane: Lane | None = None
    completion_window: str | None = None
    metadata: dict[str, str] | None = None
    output_expires_seconds: int | None = None
    webhook: WebhookRequest | None = None
    """None: none of its own."""
    allowed_models: frozenset[str] | None = None
    """What its maker's key may ask, whatever the parent's could."""
    api_key: str | None = field(kw_only=True)
    """The id of its maker's key, for whom it counts; None: nobody's."""


def retry(
    tx: Transaction,
    tenant: str,
    kind: str,
    id: str,
    repeats: Retry,
    terms: RetryRequest,
    once: Once | None,
    settings: LimitSettings,
) -> Batch:
    """Make a batch (of a job: a job) that repeats lines of this one; its input is derived by whoever validates it.

    Raises NotFound, and Conflict if it has not ended, has no such lines, or files that are needed are gone.
    """
    if earlier := made_before(tx, tenant, once):
        return earlier
    parent = batches.get(tx.conn, tenant, id)
    if parent is None or parent.kind != kind:
        raise NotFound(kind, id, param=f"{kind}_id")
    _check(parent, repeats, skipped.count(tx.conn, parent.id))
    root = parent if parent.root is None else batches.get(tx.conn, tenant, parent.root)
    assert root is not None, "batches are never deleted"
    window = terms.completion_window or parent.completion_window
    asked = Terms(
        endpoint=parent.endpoint,
        lane=terms.lane or parent.lane,
        completion_window=window,
        metadata=parent.metadata if terms.metadata is None else terms.metadata,
        output_expires_seconds=terms.output_expires_seconds or parent.output_expires_seconds,
        dedup=parent.dedup,
        plan=parent.plan,
        default_model=parent.default_model,
        cache=CacheMode(parent.cache) if parent.cache else None,
        cache_ttl_seconds=parent.cache_ttl_seconds,
        webhook=terms.webhook,
        allowed_models=terms.allowed_models,
        api_key=terms.api_key,
    )
    new = NewBatch(
        fresh(f"{kind}_"),
        tenant,
        kind,
        asked,
        parse_window(window, settings.max_window_seconds),
        once,
        input_file=fresh("file-"),
        parent=parent.id,
        root=root.id,
        repeats=repeats,
        reads=_read(tx, parent, root),
    )
    return creation.insert(tx, new, settings)[0]


def _check(parent: Batch, repeats: Retry, skipped_lines: int) -> None:
    if not parent.ended:
        message = f"The {parent.kind} is {parent.state}: its lines can be repeated once it has ended."
        raise Conflict(parent.state, "retried", message)
    failed = parent.failed - skipped_lines if repeats.wants_failed else 0
    answered = 0
    if repeats.answered is not None:
        answered = parent.empty if repeats.answered == EMPTY else parent.completed
    if failed + answered == 0:
        message = f"The {parent.kind} has no such line: {parent.completed} are answered and {parent.failed} failed"
        message += f", of which {skipped_lines} were skipped: they are in no retry." if skipped_lines else "."
        raise Conflict(parent.state, "retried", message, code=NOTHING)
    if not parent.inline and parent.output_file is None and parent.error_file is None:
        message = f"The {parent.kind} failed before its results were put together: create it anew."
        raise Conflict(parent.state, "retried", message, code=NOTHING)


def _read(tx: Transaction, parent: Batch, root: Batch) -> tuple[str, ...]:
    """Hold what the child reads until it has ended; raise Conflict if it is gone."""
    wanted = [parent.output_file, parent.error_file, parent.merged_output_file, parent.merged_error_file]
    for one in {parent.id: parent, root.id: root}.values():
        if not one.inline:
            wanted.append(one.input_file)
    found = [id for id in wanted if id is not None]
    for id in found:
        if files.share(tx.conn, parent.tenant, id) is None:
            message = f"The file {id} was deleted or has expired; without it these lines can't be repeated."
            raise Conflict(parent.state, "retried", message, code=GONE)
    return tuple(found)
