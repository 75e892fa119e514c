"""Budgets in force: the keeper sums what tenants spent this month, tells them, and pauses or resumes what runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, Final, ParamSpec

from penstock.domain.accounts import price
from penstock.domain.api_errors import Conflict, NotFound
from penstock.domain.work.batch import Batch, PauseReason
from penstock.service.admin import tenants
from penstock.service.control import steer
from penstock.service.core import audit
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import Database, Transaction
from penstock.service.webhooks import webhook_queue
from penstock.settings.dispatch import DispatchSettings
from penstock.store.accounts import budgets

P = ParamSpec("P")

_MOST_AT_ONCE: Final = 100
EVENTS: Final = {"warned": "budget.warning", "spent": "budget.spent"}
_GRADES: Final = (None, "warned", "spent")


def set_budget(tx: Transaction, tenant: str, amount: str | None) -> None:
    """Set what a tenant may spend in a month, in units of the currency, or take it away; in force at the next look.

    Raises NotFound, BadRequest for what is no amount, and Conflict while the tenant is being erased.
    """
    tenants.check_open(tx, tenant)
    picos = None if amount is None else price.read_money(amount, "monthly_budget")
    if not budgets.set_(tx.conn, tenant, picos):
        raise NotFound("tenant", tenant)
    audit.record(tx, tenant, "budget.updated", tenant, budget=amount)


def look_at_all(db: Database, settings: DispatchSettings) -> int:
    """Look at each budget that may have changed; how many batches were paused or resumed."""
    moved = 0
    for one in db.run(lambda tx: budgets.due(tx.conn)):
        if db.run(look, one.tenant) == "spent":
            running = db.run(_to_pause, one.tenant)
            moved += sum(_moved(db, steer.pause, one.tenant, *found, PauseReason.BUDGET) for found in running)
        else:
            paused = db.run(_to_resume, one.tenant)
            moved += sum(_moved(db, steer.resume, one.tenant, *found, settings) for found in paused)
    return moved


def look(tx: Transaction, tenant: str) -> str | None:
    """Sum what a tenant spent, write how its budget stands, and owe it the event that follows, once a month each."""
    before = budgets.lock(tx.conn, tenant)
    if before is None:
        return None
    used = budgets.spent(tx.conn, tenant) if before.budget is not None else 0
    state = before.state_at(used)
    if (used, state) != (before.used, before.state):
        budgets.found(tx.conn, tenant, used, state)
    if _GRADES.index(state) > _GRADES.index(before.state) and state is not None:
        event = fresh("evt_")
        budgets.insert_event(tx.conn, tenant, event, EVENTS[state])
        webhook_queue.owe(tx, [event])
    return state


def _to_pause(tx: Transaction, tenant: str) -> list[tuple[str, str]]:
    return budgets.to_pause(tx.conn, tenant, _MOST_AT_ONCE)


def _to_resume(tx: Transaction, tenant: str) -> list[tuple[str, str]]:
    return budgets.to_resume(tx.conn, tenant, _MOST_AT_ONCE)


def _moved(db: Database, move: Callable[Concatenate[Transaction, P], Batch], *args: P.args, **kwargs: P.kwargs) -> bool:
    try:
        db.run(move, *args, **kwargs)
    except (Conflict, NotFound):  # it ended meanwhile
        return False
    return True
