"""Aliases: every change is a row, and of an alias the latest counts. So a change back is one row, too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from penstock.domain.accounts.audit import Actor
from penstock.domain.models.alias import AliasChange, Split
from penstock.domain.models.demand import Demand

_COLUMNS: Final = "id, model, alias, versions, weights, guard, demand, actor, reason, created_at"
_INSERT = text(f"""
    insert into model_aliases (model, alias, versions, weights, guard, demand, actor, reason)
    values (:model, :alias, cast(:versions as int[]), cast(:weights as int[]), cast(:guard as jsonb),
            cast(:demand as jsonb), :actor, :reason)
    returning {_COLUMNS}""")
_LATEST = text(f"""
    select distinct on (model, alias) {_COLUMNS} from model_aliases
    where (cast(:model as text) is null or model = :model)
    order by model, alias, id desc""")
_HISTORY = text(f"""
    select {_COLUMNS} from model_aliases where model = :model and alias = :alias
    order by id desc limit :limit""")


def change(
    conn: Connection,
    model: str,
    alias: str,
    split: Split | None,
    *,
    guard: Mapping[str, float] | None = None,
    demand: Demand | None = None,
    actor: Actor,
    reason: str = "",
) -> AliasChange:
    """Let an alias stand for these versions from now on; None: for nothing any more."""
    weights = split.weights if split else {}
    values = {
        "model": model,
        "alias": alias,
        "versions": list(weights),
        "weights": list(weights.values()),
        "guard": None if guard is None else json.dumps(dict(guard)),
        "demand": None if demand is None else json.dumps(demand.as_json()),
        "actor": actor.id,
        "reason": reason,
    }
    return _change(conn.execute(_INSERT, values).one())


def latest(conn: Connection, model: str | None = None) -> list[AliasChange]:
    """What each alias (of one model) stands for now; those that are gone are not in it."""
    found = [_change(row) for row in conn.execute(_LATEST, {"model": model})]
    return [one for one in found if one.split is not None]


def history(conn: Connection, model: str, alias: str, *, limit: int) -> list[AliasChange]:
    """The changes of an alias, newest first."""
    return [_change(row) for row in conn.execute(_HISTORY, {"model": model, "alias": alias, "limit": limit})]


def _change(row: Row[Any]) -> AliasChange:
    weights = dict(zip(row.versions, row.weights, strict=True))
    split = Split(weights) if weights else None
    demand = Demand.of_json(row.demand)
    return AliasChange(row.id, row.model, row.alias, split, row.guard, demand, row.actor, row.reason, row.created_at)
