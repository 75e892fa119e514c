"""Prepare: check the references, then derive a batch's input: the eval's lines, asking the run's model."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import LeaseLost, NoSpace, PenstockError, Unavailable
from penstock.domain.evals.run import Eval, EvalRun, RunFailed, RunState
from penstock.domain.file import BATCH
from penstock.domain.limits.limit import LimitName
from penstock.domain.work.batch import Batch, LineError
from penstock.domain.work.lane import Lane
from penstock.domain.work.terms import Terms
from penstock.formats import input as lines
from penstock.service.core import scratch
from penstock.service.core.transaction import Database, Transaction
from penstock.service.evals import file_lines, references
from penstock.service.evals.eval_work import Hold
from penstock.service.intake import submit
from penstock.service.limits import kept
from penstock.service.results.result_file import ResultFile, Written, publish
from penstock.settings import Settings
from penstock.settings.limits import LimitSettings
from penstock.store.evals import eval_runs

NOTE: Final = "penstock_eval_run"
"""In the metadata of a batch that was made for a run."""


def prepare(db: Database, blobs: Blobs, one: Eval, run: EvalRun, hold: Hold, settings: Settings) -> str:
    """Move a run on to its batch, or at once to its scores; what happened, in words. Raises RunFailed and LeaseLost."""
    with scratch.folder(settings.scratch_dir, "eval-") as folder:
        found = references.read(db, blobs, one, folder, hold, settings)
        if found is not None:
            for _ in references.unique(found, hold):
                pass
    if not run.owns_batch:
        db.run(_move, hold, RunState.SCORING)
        return "prepared"
    assert one.input_file is not None, "its create was refused else"
    assert one.endpoint is not None, "it has an input"
    key = references.key_of(db, run.tenant, one.input_file)
    with ResultFile(db, blobs, run.tenant, f"{run.id}_input.jsonl") as sheet:
        for line in asked(blobs, key, one.endpoint, run, hold, settings):
            sheet.line(line)
    if sheet.written is None:
        raise RunFailed("empty_file", "The eval's input has no line.")
    batch = make_batch(db, hold, sheet.written, terms_of(one.endpoint, run), RunState.RUNNING, settings)
    return f"{sheet.written.lines} lines · {batch.id}"


def asked(blobs: Blobs, key: str, endpoint: str, run: EvalRun, hold: Hold, settings: LimitSettings) -> Iterator[bytes]:
    """The eval's lines as this run asks them; raise RunFailed for the first that is none."""
    changes = {**run.terms.changes, "model": run.terms.model}
    for number, line in file_lines.read(blobs, key, hold, settings, code="invalid_request", of=""):
        checked = lines.check(line, number, endpoint, settings.max_custom_id_bytes, run.terms.model)
        if isinstance(checked, LineError):
            raise RunFailed(checked.code, f"Line {number}: {checked.message}")
        yield lines.changed(line, changes)


def terms_of(endpoint: str, run: EvalRun) -> Terms:
    """On which terms a run's batches are made."""
    return Terms(
        endpoint=endpoint,
        lane=Lane(run.terms.lane),
        completion_window=run.terms.completion_window,
        metadata={NOTE: run.id},
        allowed_models=run.terms.allowed_models,
        api_key=run.terms.api_key,
    )


def make_batch(
    db: Database, hold: Hold, written: Written, terms: Terms, becomes: RunState, settings: LimitSettings
) -> Batch:
    """Make a batch of a file that was written, and the run wait for it, in one step; raise RunFailed and LeaseLost."""
    try:
        return db.run(_make_batch, hold, written, terms, becomes, settings)
    except (Unavailable, NoSpace):
        raise
    except PenstockError as error:  # a limit of its tenant: told, as to whoever would make the batch by hand
        raise RunFailed(error.code or "invalid_request", error.message) from error


def _make_batch(
    tx: Transaction, hold: Hold, written: Written, terms: Terms, becomes: RunState, settings: LimitSettings
) -> Batch:
    run = eval_runs.find(tx.conn, hold.work.id)
    if run is None:
        raise LeaseLost
    kept.check(tx, run.tenant, {LimitName.FILES: 1, LimitName.STORED_BYTES: written.size_bytes}, settings)
    publish(tx, run.tenant, written, purpose=BATCH, ttl=timedelta(seconds=settings.file_ttl_seconds))
    batch = submit.create_batch(tx, run.tenant, written.id, terms, None, settings)
    named = {"embeddings" if becomes is RunState.EMBEDDING else "batch": batch.id}
    if not eval_runs.move(tx.conn, run.id, hold.work.lease, becomes, **named):
        raise LeaseLost
    return batch


def _move(tx: Transaction, hold: Hold, state: RunState) -> None:
    if not eval_runs.move(tx.conn, hold.work.id, hold.work.lease, state):
        raise LeaseLost
