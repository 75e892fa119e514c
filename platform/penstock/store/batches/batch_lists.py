"""Batch lists: a tenant's batches or jobs by what is asked of them, and how many there are in each state."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, TextClause, text

from penstock.domain.work.batch import TERMINAL, BatchKey, BatchState
from penstock.domain.work.batch_filter import BatchFilter
from penstock.domain.work.lane import Lane
from penstock.store import cursors
from penstock.store.batches import outlooks
from penstock.store.batches.outlooks import BatchesSeen
from penstock.store.cursors import ListPlace

_OPEN: Final = sorted(set(BatchState) - TERMINAL)
_AFTER: Final = "(cast(:after_at as timestamptz) is null or (b.created_at, b.id) < (:after_at, :after))"
_CONDITIONS: Final = {
    "lane": "b.lane = :lane",
    "model": "b.model = :model",
    "metadata": "b.metadata <> '{}' and b.metadata @> cast(:metadata as jsonb)",
    "created_after": "b.created_at >= :created_after",
    "created_before": "b.created_at < :created_before",
}


@functools.cache
def _which(by_state: bool, *given: str) -> str:
    """The newest, of each state by itself: so each index that a filter has is read in order, and no further."""
    conditions = " and ".join(["b.tenant = :tenant", "b.kind = :kind", _AFTER, *(_CONDITIONS[name] for name in given)])
    if not by_state:
        return f"where {conditions} order by b.created_at desc, b.id desc limit :limit"
    return f"""where b.id = any(array(
        select found.id from unnest(cast(:states as text[])) as asked(state) cross join lateral (
            select b.id, b.created_at from batches b where b.state = asked.state and {conditions}
            order by b.created_at desc, b.id desc limit :limit) found
        order by found.created_at desc, found.id desc limit :limit))"""


@functools.cache
def _page(by_state: bool, *given: str) -> TextClause:
    return outlooks.statement(_which(by_state, *given))


@functools.cache
def _ids(by_state: bool, *given: str) -> TextClause:
    ordered = " order by b.created_at desc, b.id desc" if by_state else ""
    return text(f"select b.id from batches b {_which(by_state, *given)}{ordered}")


_WATCHED = outlooks.statement("""
    -- What callers watch, in one look: batches by key, and of some tenants the newest few that are open.
    where b.id = any(array(
        select b.id
        from unnest(cast(:tenants as text[]), cast(:kinds as text[]), cast(:ids as text[])) as k(tenant, kind, id)
        join batches b on b.id = k.id and b.tenant = k.tenant and b.kind = k.kind
        union
        select newest.id
        from unnest(cast(:page_tenants as text[]), cast(:page_kinds as text[])) as p(tenant, kind) cross join lateral (
            select found.id from unnest(cast(:open as text[])) as asked(state) cross join lateral (
                select b.id, b.created_at from batches b
                where b.tenant = p.tenant and b.kind = p.kind and b.state = asked.state
                order by b.created_at desc, b.id desc limit :each) found
            order by found.created_at desc, found.id desc limit :each) newest))""")

_TOTALS = text("""
    -- Open ones all, ended ones the newest so many of each state, of some days: so its cost doesn't grow with history.
    select counted.state, counted.lane, count(*)::int as number,
           (sum(count(*)) over (partition by counted.state))::int as of_state
    from unnest(cast(:states as text[])) as asked(state) cross join lateral (
        select b.state, b.lane from batches b
        where b.tenant = :tenant and b.kind = :kind and b.state = asked.state
          and (asked.state = any(cast(:open as text[])) or b.created_at >= clock_timestamp() - :since)
        order by b.created_at desc, b.id desc
        limit case when asked.state = any(cast(:open as text[])) then null else cast(:most as int) end) counted
    group by counted.state, counted.lane""")


@dataclass(frozen=True)
class BatchTotal:
    """How many batches or jobs are in a state and a lane."""

    state: BatchState
    lane: Lane
    count: int
    capped: bool = False
    """There are more in this state; these are the newest of it."""


def _given(chosen: BatchFilter) -> tuple[tuple[Any, ...], dict[str, Any]]:
    names = [name for name in _CONDITIONS if getattr(chosen, name)]
    values = {name: getattr(chosen, name) for name in names}
    if "metadata" in values:
        values["metadata"] = json.dumps(dict(chosen.metadata))
    if chosen.states:
        values["states"] = sorted(chosen.states)
    return (bool(chosen.states), *names), values


def page(
    conn: Connection,
    tenant: str,
    *,
    kind: str,
    chosen: BatchFilter,
    after: ListPlace | None,
    limit: int,
    gone: timedelta,
) -> BatchesSeen:
    """A tenant's batches (or jobs) of a filter, newest first, after this place, each with its outlook."""
    names, values = _given(chosen)
    values |= {"tenant": tenant, "kind": kind, "limit": limit} | cursors.values(after)
    return outlooks.look(conn, _page(*names), values, gone=gone, outlook=True)


def ids(
    conn: Connection, tenant: str, *, kind: str, chosen: BatchFilter, after: ListPlace | None, limit: int
) -> list[str]:
    """Their ids alone."""
    names, values = _given(chosen)
    values |= {"tenant": tenant, "kind": kind, "limit": limit} | cursors.values(after)
    return [row.id for row in conn.execute(_ids(*names), values)]


def watched(
    conn: Connection,
    keys: Sequence[BatchKey],
    pages: Sequence[tuple[str, str]],
    *,
    each: int,
    gone: timedelta,
    outlook: bool,
) -> BatchesSeen:
    """Batches by key, and of each of these tenants and kinds the newest `each` that are open."""
    values = {
        "tenants": [key.tenant for key in keys],
        "kinds": [key.kind for key in keys],
        "ids": [key.id for key in keys],
        "page_tenants": [tenant for tenant, _ in pages],
        "page_kinds": [kind for _, kind in pages],
        "open": _OPEN,
        "each": each,
    }
    return outlooks.look(conn, _WATCHED, values, gone=gone, outlook=outlook)


def totals(conn: Connection, tenant: str, *, kind: str, since: timedelta, most: int) -> list[BatchTotal]:
    """How many there are by state and lane: open ones all, of ended ones the newest `most` of each state."""
    values = {
        "tenant": tenant,
        "kind": kind,
        "states": list(BatchState),
        "open": _OPEN,
        "since": since,
        "most": most + 1,
    }
    return [
        BatchTotal(state, Lane(row.lane), row.number, capped=state in TERMINAL and row.of_state > most)
        for row in conn.execute(_TOTALS, values)
        for state in [BatchState(row.state)]
    ]
