"""What an io worker does about one run or comparison that it has claimed."""

from __future__ import annotations

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import LeaseLost
from penstock.domain.evals.comparison import Comparison
from penstock.domain.evals.run import RUN_PREFIX, Eval, EvalRun, RunState
from penstock.service.core.transaction import Database, Transaction
from penstock.service.evals import compare, prepare, score
from penstock.service.evals.eval_work import Hold
from penstock.settings import Settings
from penstock.store.evals import comparisons, eval_runs, evals


def do(db: Database, blobs: Blobs, hold: Hold, settings: Settings) -> str:
    """Prepare or score a run, or compare two; what happened, in words. Raises RunFailed and LeaseLost."""
    if not hold.work.id.startswith(RUN_PREFIX):
        return compare.compare(db, blobs, db.run(_comparison, hold.work.id), hold)
    run, one = db.run(_run, hold.work.id)
    step = prepare.prepare if run.state is RunState.PREPARING else score.score
    return step(db, blobs, one, run, hold, settings)


def _run(tx: Transaction, id: str) -> tuple[EvalRun, Eval]:
    run = eval_runs.find(tx.conn, id)
    one = evals.get(tx.conn, run.tenant, run.eval) if run else None
    if run is None or one is None:  # deleted just now
        raise LeaseLost
    return run, one


def _comparison(tx: Transaction, id: str) -> Comparison:
    found = comparisons.find(tx.conn, id)
    if found is None:
        raise LeaseLost
    return found
