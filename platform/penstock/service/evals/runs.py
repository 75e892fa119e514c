"""Runs: one batch's answers, scored: of a batch that is made for it, or of one that has ended."""

from __future__ import annotations

from penstock.domain.accounts.access import check_model
from penstock.domain.accounts.price import money
from penstock.domain.api_errors import BadRequest, Conflict, NotFound, TooMany
from penstock.domain.evals.run import Eval, EvalRun, RunBatch, RunState, RunTerms, RunView
from penstock.domain.evals.scorer import embedder
from penstock.domain.idempotency import Once
from penstock.domain.work import hint
from penstock.domain.work.batch import Batch, BatchState, parse_window
from penstock.service.control import cancel as cancelling
from penstock.service.core import audit, cursor, unheard_creates
from penstock.service.core.transaction import Transaction
from penstock.service.evals import evals
from penstock.settings.limits import LimitSettings
from penstock.store.batches import batches
from penstock.store.cursors import Listed
from penstock.store.evals import eval_runs
from penstock.store.evals import evals as eval_rows


def create(tx: Transaction, tenant: str, new: EvalRun, once: Once | None, settings: LimitSettings) -> EvalRun:
    """Make a run that waits to be prepared.

    Raises NotFound, BadRequest, Forbidden for a model that its maker's key may not ask, Conflict for a batch that has
    not ended, and TooMany.
    """
    if earlier := unheard_creates.made_before(tx, tenant, once, eval_runs.by_idempotency_key):
        return get(tx, tenant, new.eval, earlier)
    one = evals.get(tx, tenant, new.eval)
    _check(tx, tenant, one, new.terms, settings)
    evals.lock(tx, tenant)
    there, still_open = eval_runs.count(tx.conn, tenant)
    if there >= settings.max_eval_runs:
        message = f"There are {there} runs, as many as your tenant may have: delete some."
        raise TooMany(message, code="limit_exceeded", headers={"x-should-retry": "false"})
    if still_open >= settings.max_open_eval_runs:
        message = f"There are {still_open} runs that have not ended, as many as your tenant may have at once."
        raise TooMany(message, headers={"retry-after": "30"})
    if not eval_rows.share(tx.conn, tenant, one.id):
        raise NotFound("eval", one.id, param="eval_id")
    if not eval_runs.insert(tx.conn, tenant, new, once):
        earlier = unheard_creates.made_before(tx, tenant, once, eval_runs.by_idempotency_key)
        assert earlier is not None, "only an idempotency key can be taken"
        return get(tx, tenant, new.eval, earlier)
    unheard_creates.note(tx, tenant, once, new.id)
    audit.record(tx, tenant, "eval_run.created", new.id, eval=one.id)
    tx.hint(hint.evaluate(new.id))
    return get(tx, tenant, one.id, new.id)


def _check(tx: Transaction, tenant: str, one: Eval, terms: RunTerms, settings: LimitSettings) -> None:
    if embeds := embedder(one.scorers):
        check_model(terms.allowed_models, embeds, param="eval_id")
    if terms.model is not None:
        if one.input_file is None:
            message = "This eval has no input_file_id, so a run can't ask a model: name a batch that has ended."
            raise BadRequest(message, param="model")
        check_model(terms.allowed_models, terms.model)
        parse_window(terms.completion_window, settings.max_window_seconds)
        return
    assert terms.batch is not None, "a run has a model or a batch"
    batch = batches.get(tx.conn, tenant, terms.batch)
    if batch is None:
        raise NotFound("batch", terms.batch, param="batch_id")
    if not batch.ended:
        raise Conflict(batch.state, "scored", f"The batch is {batch.state}: it can be scored once it has ended.")
    if not batch.completed + batch.failed or (batch.state is BatchState.FAILED and batch.output_file is None):
        raise Conflict(batch.state, "scored", "The batch ended before it had answers.", code="nothing_to_score")


def get(tx: Transaction, tenant: str, eval: str, id: str) -> EvalRun:
    """One run; raise NotFound."""
    found = eval_runs.get(tx.conn, tenant, id)
    if found is None or found.eval != eval:
        raise NotFound("eval run", id, param="run_id")
    return found


def view(tx: Transaction, tenant: str, eval: str, id: str) -> RunView:
    """One run with what its batch says; raise NotFound."""
    return seen(tx, get(tx, tenant, eval, id))


def seen(tx: Transaction, run: EvalRun) -> RunView:
    """A run with what its batch says, if that is there."""
    batch = batches.get(tx.conn, run.tenant, run.batch) if run.batch else None
    return RunView(run, None if batch is None else _batch(batch))


def _batch(one: Batch) -> RunBatch:
    ended_at = one.finalizing_at or one.completed_at or one.expired_at or one.cancelled_at or one.failed_at
    began = one.in_progress_at or (one.created_at if one.inline else None)
    return RunBatch(
        id=one.id,
        status=str(one.state),
        total=one.total,
        done=one.completed + one.failed,
        input_tokens=one.usage.input_tokens,
        output_tokens=one.usage.output_tokens,
        gpu_seconds=one.cost.gpu_microseconds / 1_000_000,
        cost=None if one.currency is None else money(one.cost.tokens + one.cost.gpu),
        currency=one.currency,
        seconds=None if began is None or ended_at is None else (ended_at - began).total_seconds(),
    )


def page(tx: Transaction, tenant: str, eval: str, *, after: str | None, limit: int) -> list[RunView]:
    """The runs of an eval, newest first, after the one named, which may be gone; raise NotFound."""
    evals.get(tx, tenant, eval)
    place = cursor.place(tx, tenant, Listed.EVAL_RUNS, after)
    return [seen(tx, run) for run in eval_runs.page(tx.conn, tenant, eval, after=place, limit=limit)]


def cancel(tx: Transaction, tenant: str, eval: str, id: str) -> EvalRun:
    """End a run, and cancel the batches that were made for it; cancelling twice is the same answer.

    Raises NotFound, or Conflict if it has ended otherwise.
    """
    get(tx, tenant, eval, id)
    run = eval_runs.lock(tx.conn, tenant, id)
    if run is None:
        raise NotFound("eval run", id, param="run_id")
    if run.state is RunState.CANCELLED:
        return run
    if not eval_runs.cancel(tx.conn, tenant, id):
        raise Conflict(run.state, "cancelled")
    for batch in (run.batch if run.owns_batch else None, run.embeddings):
        found = batches.get(tx.conn, tenant, batch) if batch else None
        if found is not None and not found.ended and found.finish_as is None:
            cancelling.cancel(tx, tenant, found.kind, found.id)
    audit.record(tx, tenant, "eval_run.cancelled", id, eval=eval)
    return get(tx, tenant, eval, id)


def delete(tx: Transaction, tenant: str, eval: str, id: str) -> None:
    """Delete a run that has ended, with its results and comparisons; its batch stays. Raises NotFound, or Conflict."""
    get(tx, tenant, eval, id)
    run = eval_runs.lock(tx.conn, tenant, id)
    if run is None:
        raise NotFound("eval run", id, param="run_id")
    if not run.ended:
        raise Conflict(run.state, "deleted", f"It is {run.state}: cancel it, and delete it then.")
    eval_runs.delete(tx.conn, tenant, [id])
    audit.record(tx, tenant, "eval_run.deleted", id, eval=eval)
