"""Comparisons: two completed runs of one eval, made once for each pair."""

from __future__ import annotations

from penstock.domain.api_errors import BadRequest, Conflict, NotFound, TooMany
from penstock.domain.evals.comparison import COMPARISON_PREFIX, Comparison, ComparisonState
from penstock.domain.evals.run import RunState, RunView
from penstock.domain.work import hint
from penstock.service.core import audit
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import Transaction
from penstock.service.evals import evals, runs
from penstock.settings.limits import LimitSettings
from penstock.store.evals import comparisons
from penstock.store.evals import evals as eval_rows


def create(
    tx: Transaction, tenant: str, eval: str, *, baseline: str, candidate: str, settings: LimitSettings
) -> Comparison:
    """Compare two runs, or give the comparison that there is of them.

    Raises NotFound, BadRequest for a run and itself, Conflict for a run that has not completed, and TooMany.
    """
    evals.get(tx, tenant, eval)
    if baseline == candidate:
        raise BadRequest("A run can't be compared with itself.", param="candidate_run_id")
    for run in [runs.get(tx, tenant, eval, id) for id in (baseline, candidate)]:
        if run.state is not RunState.COMPLETED:
            raise Conflict(run.state, "compared", f"The run {run.id} is {run.state}: only completed ones are compared.")
    if not eval_rows.share(tx.conn, tenant, eval):
        raise NotFound("eval", eval, param="eval_id")
    known = comparisons.of(tx.conn, tenant, baseline=baseline, candidate=candidate)
    if known is None or known.state is ComparisonState.FAILED:
        _check_room(tx, tenant, settings)
    id = fresh(COMPARISON_PREFIX)
    if comparisons.insert(tx.conn, tenant, id=id, eval=eval, baseline=baseline, candidate=candidate):
        audit.record(tx, tenant, "eval.compared", eval, baseline=baseline, candidate=candidate)
    found = comparisons.of(tx.conn, tenant, baseline=baseline, candidate=candidate)
    assert found is not None, "it was there, or was inserted"
    if found.state is ComparisonState.COMPARING:
        tx.hint(hint.evaluate(found.id))
    return found


def _check_room(tx: Transaction, tenant: str, settings: LimitSettings) -> None:
    evals.lock(tx, tenant)
    there, still_open = comparisons.count(tx.conn, tenant)
    if there >= settings.max_eval_comparisons:
        message = f"There are {there} comparisons, as many as your tenant may have: delete some of their runs."
        raise TooMany(message, code="limit_exceeded", headers={"x-should-retry": "false"})
    if still_open >= settings.max_open_eval_runs:
        message = f"There are {still_open} comparisons that have not ended, as many as your tenant may have at once."
        raise TooMany(message, headers={"retry-after": "5"})


def get(tx: Transaction, tenant: str, eval: str, id: str) -> Comparison:
    """One comparison; raise NotFound."""
    found = comparisons.get(tx.conn, tenant, id)
    if found is None or found.eval != eval:
        raise NotFound("comparison", id, param="comparison_id")
    return found


def sides(tx: Transaction, tenant: str, one: Comparison) -> tuple[RunView, RunView]:
    """Baseline and candidate as they are."""
    baseline, candidate = (runs.view(tx, tenant, one.eval, id) for id in (one.baseline, one.candidate))
    return baseline, candidate
