"""Proof by an eval: what a promotion may ask for before a version gets more weight."""

from __future__ import annotations

from penstock.service.core.transaction import Transaction
from penstock.store.evals import eval_runs


def is_proven(tx: Transaction, tenant: str, *, eval: str, model: str, scorer: str, at_least: float) -> bool:
    """Whether a completed run of this model (as the run named it, `name@v3`) has a lower bound of at least so much.

    The bound is the lower end of the 95 % interval of the scorer's mean, not the mean: few lines prove little.
    """
    found = eval_runs.best_low(tx.conn, tenant, eval=eval, model=model, scorer=scorer)
    return found is not None and found >= at_least
