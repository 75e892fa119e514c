"""Budgets in force: the keeper sums what tenants spent this month, tells them, and pauses or resumes what runs."""

from __future__ import annotations

from typing import Final

from penstock.domain.accounts import price
from penstock.domain.api_errors import Conflict, NotFound
from penstock.domain.work.batch import PauseReason
from penstock.service.control import steer
from penstock.service.core import audit
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import Database, Transaction
from penstock.service.webhooks import webhook_queue
from penstock.settings.dispatch import DispatchSettings
from penstock.store.accounts import budgets

_MOST_AT_ONCE: Final = 100
EVENTS: Final = {"warned": "budget.warning", "spent": "budget.spent"}
_GRADES: Final = (None, "warned", "spent")


def set_budget(tx: Transaction, tenant: str, amount: str | None) -> None:
    """Set what a tenant may spend in a month, in units of the currency, or take it away; in force at the next look.

    Raises NotFound, or BadRequest for what is no amount.
    """
    picos = None if amount is None else price.read(amount, "budget") * price.PICOS // 10**6
    if not budgets.set_(tx.conn, tenant, picos):
        raise NotFound("tenant", tenant)
    audit.record(tx, tenant, "budget.updated", tenant, budget=amount)


def look_at_all(db: Database, settings: DispatchSettings) -> int:
    """Look at each budget that may have changed; how many batches were paused or resumed."""
    moved = 0
    for one in db.run(lambda tx: budgets.due(tx.conn)):
        state = db.run(look, one.tenant)
        moved += _pause(db, one.tenant) if state == "spent" else _resume(db, one.tenant, settings)
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


def _pause(db: Database, tenant: str) -> int:
    found = db.run(lambda tx: budgets.to_pause(tx.conn, tenant, _MOST_AT_ONCE))
    return sum(_paused(db, tenant, kind, id) for kind, id in found)


def _paused(db: Database, tenant: str, kind: str, id: str) -> int:
    try:
        db.run(steer.pause, tenant, kind, id, PauseReason.BUDGET)
    except (Conflict, NotFound):  # it ended meanwhile
        return 0
    return 1


def _resume(db: Database, tenant: str, settings: DispatchSettings) -> int:
    found = db.run(lambda tx: budgets.to_resume(tx.conn, tenant, _MOST_AT_ONCE))
    return sum(_resumed(db, tenant, kind, id, settings) for kind, id in found)


def _resumed(db: Database, tenant: str, kind: str, id: str, settings: DispatchSettings) -> int:
    try:
        db.run(steer.resume, tenant, kind, id, settings)
    except (Conflict, NotFound):
        return 0
    return 1
