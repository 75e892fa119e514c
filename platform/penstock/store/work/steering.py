"""Steering: how the state and the terms of an open batch change while it is there. The caller has locked its row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, text

from penstock.domain.work.batch import BatchState, PauseReason
from penstock.domain.work.lane import Lane

_MOVE = text("""
    -- What was expected of it at first is not true any more.
    with unsaid as (delete from first_expectations where batch = :id)
    update batches set state = :state, paused_as = :paused_as where id = :id""")

_CHANGE = text("""
    with unsaid as (
        delete from first_expectations where batch = :id and coalesce(:lane, cast(:deadline as text)) is not null)
    update batches set
        lane = coalesce(cast(:lane as text), lane),
        completion_window = coalesce(cast(:completion_window as text), completion_window),
        deadline = coalesce(cast(:deadline as timestamptz), deadline),
        metadata = coalesce(cast(:metadata as jsonb), metadata)
    where id = :id""")

_OPEN_MODELS = text("""
    select distinct model from slices
    where batch = :id and state in ('queued', 'ready', 'running') and model is not null order by model""")


def move(conn: Connection, id: str, state: BatchState, paused_as: PauseReason | None = None) -> None:
    """Pause (and say why) or resume the locked batch; the caller knows that the move is legal."""
    conn.execute(_MOVE, {"id": id, "state": state, "paused_as": paused_as})


def change(
    conn: Connection,
    id: str,
    *,
    lane: Lane | None,
    completion_window: str | None,
    deadline: datetime | None,
    metadata: Mapping[str, str] | None,
) -> None:
    """Write new terms of the locked batch; None leaves one as it is."""
    values = {"id": id, "lane": lane, "completion_window": completion_window, "deadline": deadline}
    conn.execute(_CHANGE, values | {"metadata": None if metadata is None else json.dumps(dict(metadata))})


def open_models(conn: Connection, id: str) -> list[str]:
    """The models of the batch's open slices."""
    return [row.model for row in conn.execute(_OPEN_MODELS, {"id": id})]
