"""Demands: an alias may ask for a run of an eval before a version gets a larger share of it."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.domain.api_errors import BadRequest, Conflict, NotFound
from penstock.domain.models.alias import Split
from penstock.domain.models.demand import Demand
from penstock.domain.models.version import label
from penstock.service.core.transaction import Transaction
from penstock.store.evals import eval_runs, evals


def check(tx: Transaction, demand: Demand) -> None:
    """Raise NotFound for an eval that its tenant does not have, BadRequest for what it can't tell."""
    found = evals.get(tx.conn, demand.tenant, demand.eval)
    if found is None:
        raise NotFound("eval", demand.eval, param="eval_id")
    if found.input_file is None:
        message = f"{demand.eval} has no input_file_id, so nothing says which lines a version must have answered."
        raise BadRequest(message, param="eval_id")
    names = [scorer.name for scorer in found.scorers]
    if demand.scorer not in names:
        message = f"{demand.eval} has no scorer {demand.scorer!r}: it has {', '.join(names)}."
        raise BadRequest(message, param="scorer")
    if not 0 <= demand.at_least <= 1:
        raise BadRequest("at_least is from 0 to 1.", param="at_least")


def check_met(tx: Transaction, model: str, demand: Demand | None, before: Mapping[int, int], after: Split) -> None:
    """Raise Conflict (`not_proven`) if a version's share would grow whose runs do not show what is demanded."""
    if demand is None:
        return
    for number, weight in after.weights.items():
        if weight > before.get(number, 0):
            found = lower_bound(tx, model, number, demand)
            if found is None or found < demand.at_least:
                message = (
                    f"More of it is given to a version that shows {demand.label} (the lower end of the interval), and "
                    f"{_missing(tx, demand, f'{model}@{label(number)}', found)}."
                )
                raise Conflict("not proven", "given a larger share", message, code="not_proven")


def _missing(tx: Transaction, demand: Demand, name: str, found: float | None) -> str:
    """What there is of a version, and what to do about it."""
    if evals.get(tx.conn, demand.tenant, demand.eval) is None:
        return "that eval was deleted: demand another one, or nothing, with `penstock models demand`"
    seen = "no completed run of it is there" if found is None else f"its best run shows {found:.3f}"
    return f"of {name} {seen}: `penstock evals run {demand.eval} --model {name}`"


def is_met(tx: Transaction, model: str, demand: Demand | None, before: Mapping[int, int], after: Split) -> bool:
    """Whether a change that nobody ordered may be made: see `check_met`."""
    try:
        check_met(tx, model, demand, before, after)
    except Conflict:
        return False
    return True


def lower_bound(tx: Transaction, model: str, number: int, demand: Demand) -> float | None:
    """The best lower bound that completed runs of this version have; None if there is none.

    A run is of a version if it named it (`chat@v3`), or if its batch is pinned to it and to nothing else. It counts if
    it asked the eval's own lines, all of them, and as they are.
    """
    return eval_runs.best_low(
        tx.conn, demand.tenant, eval=demand.eval, model=model, number=number, scorer=demand.scorer
    )
