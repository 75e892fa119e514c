"""Evals: what answers are measured by is made once, and never changed: runs of one eval can be compared."""

from __future__ import annotations

from typing import Final

from penstock.domain.api_errors import BadRequest, Conflict, NotFound, TooMany, Unauthorized
from penstock.domain.evals.run import Eval
from penstock.domain.idempotency import Once
from penstock.domain.inference_endpoints import WRITING
from penstock.service.core import audit, cursor, unheard_creates
from penstock.service.core.transaction import Transaction
from penstock.settings.limits import LimitSettings
from penstock.store.accounts import limits
from penstock.store.batches import files
from penstock.store.cursors import Listed
from penstock.store.evals import eval_runs, evals

_SOME: Final = 1_000


def create(tx: Transaction, tenant: str, new: Eval, once: Once | None, settings: LimitSettings) -> Eval:
    """Make an eval, whose scorers were checked; raise BadRequest for files that can't be used, and TooMany."""
    if earlier := unheard_creates.made_before(tx, tenant, once, evals.by_idempotency_key):
        return get(tx, tenant, earlier)
    if new.endpoint is not None and new.endpoint not in WRITING:
        raise BadRequest(f"endpoint must be one that writes: {', '.join(sorted(WRITING))}.", param="endpoint")
    _usable(tx, tenant, new.input_file, "input_file_id")
    _usable(tx, tenant, new.reference_file, "reference_file_id")
    lock(tx, tenant)
    if (there := evals.count(tx.conn, tenant)) >= settings.max_evals:
        message = f"There are {there} evals, as many as your tenant may have: delete one."
        raise TooMany(message, code="limit_exceeded", headers={"x-should-retry": "false"})
    if not evals.insert(tx.conn, tenant, new, once):
        earlier = unheard_creates.made_before(tx, tenant, once, evals.by_idempotency_key)
        assert earlier is not None, "only an idempotency key can be taken"
        return get(tx, tenant, earlier)
    unheard_creates.note(tx, tenant, once, new.id)
    audit.record(tx, tenant, "eval.created", new.id)
    return get(tx, tenant, new.id)


def lock(tx: Transaction, tenant: str) -> None:
    """Let one transaction at a time add to a tenant's evals and runs; raise Unauthorized while it is erased."""
    limits.lock(tx.conn, tenant)
    if limits.of_tenant(tx.conn, tenant) is None:
        raise Unauthorized


def _usable(tx: Transaction, tenant: str, id: str | None, param: str) -> None:
    if id is not None and files.get(tx.conn, tenant, id) is None:
        message = f"No such file: {id!r}. It does not exist, was deleted or has expired."
        raise BadRequest(message, param=param)


def get(tx: Transaction, tenant: str, id: str) -> Eval:
    """One eval; raise NotFound."""
    found = evals.get(tx.conn, tenant, id)
    if found is None:
        raise NotFound("eval", id, param="eval_id")
    return found


def page(tx: Transaction, tenant: str, *, after: str | None, limit: int) -> list[Eval]:
    """A tenant's evals, newest first, after the one named, which may be gone; raise NotFound."""
    place = cursor.place(tx, tenant, Listed.EVALS, after)
    return evals.page(tx.conn, tenant, after=place, limit=limit)


def delete(tx: Transaction, tenant: str, id: str) -> None:
    """Delete an eval with its runs and their results; raise NotFound, or Conflict while a run has not ended."""
    if not evals.lock(tx.conn, tenant, id):
        raise NotFound("eval", id, param="eval_id")
    if run := eval_runs.open_of(tx.conn, tenant, id):
        raise Conflict("running", "deleted", f"Its run {run} has not ended: cancel it first.")
    while some := eval_runs.of_eval(tx.conn, tenant, id, limit=_SOME):
        eval_runs.delete(tx.conn, tenant, some)
    evals.delete(tx.conn, tenant, id)
    audit.record(tx, tenant, "eval.deleted", id)
