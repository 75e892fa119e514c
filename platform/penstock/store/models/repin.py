"""Pins: which batches have unstarted work on a version, and how that work goes to another one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, text

from penstock.domain.models.registry import ModelTarget
from penstock.domain.models.version import Version

_UNSTARTED: Final = """
    s.model = :served_as and s.adapter is not distinct from cast(:adapter as text)
    and s.state in ('waiting', 'queued', 'ready') and s.completed + s.failed = 0
    and coalesce(s.member, s.asked) is distinct from :name"""
"""Nothing of it is recorded or in an engine, and its lines do not name this very version."""
_BATCHES = text(f"""
    select distinct s.batch from slices s join batches b on b.id = s.batch
    where {_UNSTARTED} and b.state in ('in_progress', 'paused') and b.finish_as is null and s.batch > :after
    order by s.batch limit :limit""")
_MOVE = text(f"""
    -- What was ready is fed, and hinted, anew.
    update slices s set model = :to, adapter = :to_adapter, asked = coalesce(asked, :to_asked),
                        state = case when state = 'ready' then 'queued' else state end
    where s.batch = :batch and {_UNSTARTED} returning s.id""")
_STAYS = text("""
    select coalesce(array_agg(distinct coalesce(member, asked, :model)), '{}') from slices
    where batch = :batch and model = :served_as and adapter is not distinct from cast(:adapter as text)""")
_PINNED = text("select versions from batches where id = :batch")
_PIN = text("update batches set versions = cast(:versions as jsonb) where id = :batch")

_TAKE_OVER = text("""
    -- What has answers already goes on there, too: nobody else would do it.
    with moved as (
        update slices set model = :queue, state = case when state = 'ready' then 'queued' else state end
        where model = any(cast(:queues as text[])) and state in ('waiting', 'queued', 'ready') and adapter is null
          and coalesce(member, asked, '') !~ '@v[0-9]+$'
        returning batch)
    update batches b set versions = (
        select jsonb_object_agg(key, case when key = :model or starts_with(key, :model || '@')
                                          then value || to_jsonb(cast(:number as int)) else value end)
        from jsonb_each(b.versions))
    where b.id in (select batch from moved) and b.versions is not null and b.versions <> '{}'""")


def _of(version: Version) -> dict[str, str | None]:
    return {"served_as": version.served_as, "adapter": version.queue if version.definition.base else None}


def batches(conn: Connection, version: Version, *, after: str, limit: int) -> list[str]:
    """Open batches and jobs of any tenant with unstarted work of a version, by id, after this one."""
    values = {**_of(version), "name": version.name, "after": after, "limit": limit}
    return [row.batch for row in conn.execute(_BATCHES, values)]


def move(conn: Connection, batch: str, version: Version, to: ModelTarget) -> int:
    """Let a locked batch's unstarted slices of a version be another one's; how many there were."""
    adapter = to.adapter.id if to.adapter else None
    values = {**_of(version), "batch": batch, "name": version.name, "to": to.queue, "to_adapter": adapter}
    values["to_asked"] = to.name if adapter else None
    return len(conn.execute(_MOVE, values).all())


def stays(conn: Connection, batch: str, version: Version) -> list[str]:
    """What lines ask of which some are, or were, this version's work."""
    values = {**_of(version), "batch": batch, "model": version.model}
    found: list[str] = conn.execute(_STAYS, values).scalar_one()
    return found


def pinned(conn: Connection, batch: str) -> dict[str, list[int]]:
    """The versions of a batch, by what its lines ask."""
    return dict(conn.execute(_PINNED, {"batch": batch}).scalar_one() or {})


def pin(conn: Connection, batch: str, versions: Mapping[str, Sequence[int]]) -> None:
    """Say which versions a locked batch has."""
    told = {asked: list(numbers) for asked, numbers in versions.items()}
    conn.execute(_PIN, {"batch": batch, "versions": json.dumps(told)})


def take_over(conn: Connection, version: Version, queues: Sequence[str]) -> None:
    """Let a version do what waits in these queues of its model, but for lines that name their version."""
    values = {"model": version.model, "number": version.number, "queue": version.queue, "queues": list(queues)}
    conn.execute(_TAKE_OVER, values)
