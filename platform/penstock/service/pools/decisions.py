"""Decisions: written down before anything happens, moved on step by step, ended with what they cost."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from penstock.domain.api_errors import BadRequest, Conflict
from penstock.domain.pools.decision import PoolDecision
from penstock.domain.pools.situation import PoolSituation
from penstock.domain.pools.switch import ENDED, MOVES, PoolSwitch, SwitchState
from penstock.service.core import audit
from penstock.service.core.transaction import Transaction
from penstock.service.pools import pools as service_pools
from penstock.settings.dispatch import DispatchSettings
from penstock.store.pools import decisions, pools

PREFIX: Final = "switch_"
_ID: Final = re.compile(r"switch_([1-9][0-9]{0,17})", re.ASCII)
_KEPT: Final = timedelta(days=30)


def begin(
    tx: Transaction,
    pool: str,
    host: UUID,
    decision: PoolDecision,
    method: str,
    settings: DispatchSettings,
    situation: PoolSituation | None = None,
) -> int:
    """Write down what a host is about to do, with what it rests on; its id. What the host left open has failed.

    `method`: how, e.g. `restart` or `sleep`. With the situation the row says what waited, too.
    """
    gone = timedelta(seconds=settings.worker_gone_seconds)
    decisions.end_orphans(tx.conn, pool, host, gone=gone)
    decisions.forget(tx.conn, pool, kept=_KEPT)
    return decisions.insert(
        tx.conn,
        pool,
        host,
        why=str(decision.why),
        leaves=decision.leaves,
        comes=decision.comes,
        method=method,
        details=_details(decision, situation),
    )


def move(tx: Transaction, id: int, state: SwitchState | str, error: str | None = None) -> bool:
    """Say how far it is; False if it has ended: an operator cancelled it, its pool is gone, or its host was taken for
    gone. May be repeated.

    Raises Conflict for a move that there is not.
    """
    found, state = decisions.lock(tx.conn, id), SwitchState(state)
    if found is None or found.state in ENDED:
        return False
    if state is not found.state:
        _check(found, state)
        decisions.move(tx.conn, id, state, error)
    return True


def end(
    tx: Transaction, id: int, state: SwitchState | str, seconds: float | None = None, error: str | None = None
) -> bool:
    """End it as done or failed, after so many seconds; of one that is done the cost is learnt. May be repeated.

    False, and nothing happens, if it has ended already.
    """
    found, state = decisions.lock(tx.conn, id), SwitchState(state)
    if found is None or found.state in ENDED:
        return False
    _check(found, state)
    decisions.end(tx.conn, id, state, seconds, error)
    if state is SwitchState.DONE and seconds is not None:
        decisions.learn(tx.conn, id, seconds)
    return True


def cancel(tx: Transaction, pool: str) -> PoolSwitch:
    """Cancel a pool's switch that has not begun to stop its engine; whoever should have come is left alone a while.

    Raises NotFound, and Conflict (`nothing_to_cancel`).
    """
    service_pools.lock(tx, pool)
    id = decisions.cancel(tx.conn, pool, "An operator cancelled it.")
    if id is None:
        under_way = decisions.open_ones(tx.conn, pool)
        if under_way:
            now, message = under_way[0].state, "Its switch has begun to stop an engine, and goes on to its end."
        else:
            now, message = SwitchState.DONE, f"No switch of pool {pool!r} is under way."
        raise Conflict(now, SwitchState.CANCELLED, message, code="nothing_to_cancel")
    found = decisions.lock(tx.conn, id)
    assert found is not None, "it was just cancelled"
    if found.comes is not None:
        pools.forget_wake(tx.conn, pool, found.comes)
    audit.record(tx, audit.NOBODY, "pool.switch_cancelled", pool, leaves=found.leaves, comes=found.comes)
    return found


def page(tx: Transaction, pool: str, *, after: str | None = None, limit: int) -> list[PoolSwitch]:
    """A pool's decisions of thirty days, newest first, after the one named. Raises NotFound, BadRequest."""
    service_pools.get(tx, pool)
    found = _ID.fullmatch(after) if after is not None else None
    if after is not None and found is None:
        raise BadRequest("'after' is the id of a decision.", param="after")
    return decisions.page(tx.conn, pool, before=int(found[1]) if found else None, limit=limit)


def _check(found: PoolSwitch, state: SwitchState) -> None:
    if state not in MOVES[found.state]:
        raise Conflict(found.state, state)


def _details(decision: PoolDecision, situation: PoolSituation | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "scores": dict(decision.scores),
        "quantum_seconds": decision.quantum_seconds,
        "unkept": [asdict(one) for one in decision.unkept],
    }
    if situation is not None:
        told["waiting"] = {
            queue: {
                "tokens": one.tokens,
                "oldest_seconds": {str(lane): round(seconds, 1) for lane, seconds in one.oldest.items()},
                "oldest_call_seconds": one.oldest_call,
            }
            for queue, one in situation.waiting.items()
            if one.tokens or one.oldest_call is not None
        }
    return told
