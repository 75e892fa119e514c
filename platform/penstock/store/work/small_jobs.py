"""Small jobs: a row of batches and its one slice, in progress at once; any number of them in one statement."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, text

from penstock.domain.work.batch import Batch
from penstock.domain.work.lane import Lane
from penstock.domain.work.slice import Cut
from penstock.store.batches.batches import of_row

_TYPES: Final = {
    "id": "text",
    "tenant": "text",
    "endpoint": "text",
    "lane": "text",
    "lane_rank": "smallint",
    "completion_window": "text",
    "window": "interval",
    "metadata": "text",
    "output_expires_seconds": "int",
    "idempotency_key": "text",
    "fingerprint": "bytea",
    "dedup": "bool",
    "plan": "bool",
    "cache": "text",
    "cache_ttl_seconds": "int",
    "model": "text",
    "plan_offset": "bigint",
    "plan_bytes": "bigint",
    "lines": "int",
    "first_line": "int",
    "last_line": "int",
    "tokens": "bigint",
    "inline": "bytea",
}
"""What comes of a job, each as an array over the jobs."""

_INSERT = text(f"""
    -- Jobs with an idempotency key that their tenant has used already are not made.
    with given as (
        select * from unnest({", ".join(f"cast(:{name} as {type}[])" for name, type in _TYPES.items())})
            as t({", ".join(f'"{name}"' for name in _TYPES)})),
    made as (
        insert into batches (id, tenant, kind, inline, state, endpoint, model, lane, completion_window, deadline,
                             metadata, output_expires_seconds, total, in_progress_at, idempotency_key, fingerprint,
                             dedup, plan, cache, cache_ttl_seconds)
        select id, tenant, 'job', true, 'in_progress', endpoint, model, lane, completion_window,
               now() + "window", cast(metadata as jsonb), output_expires_seconds, lines, now(),
               idempotency_key, fingerprint, dedup, plan, cache, cache_ttl_seconds
        from given
        on conflict (tenant, idempotency_key) where idempotency_key is not null do nothing
        returning *),
    cut as (
        insert into slices (batch, tenant, model, lane, lane_rank, deadline, state, plan_offset, plan_bytes,
                            lines, first_line, last_line, tokens, inline)
        select id, g.tenant, g.model, g.lane, lane_rank, made.deadline, 'queued', plan_offset, plan_bytes,
               lines, first_line, last_line, tokens, g.inline
        from given g join made using (id))
    select made.*, 0 as live_completed, 0 as live_failed, 0 as live_empty, cast('{{}}' as int[]) as live_empty_lines,
           0 as live_input_tokens, 0 as live_cached_tokens, 0 as live_output_tokens, 0 as live_reasoning_tokens,
           0 as live_reused_output_tokens, 0 as live_gpu_microseconds, 0 as live_token_cost, 0 as live_gpu_cost,
           (select currency from prices limit 1) as currency
    from made""")


@dataclass(frozen=True, slots=True)
class NewJob:
    """A small job that is to be made."""

    id: str
    tenant: str
    cut: Cut
    """Its one slice."""
    inline: bytes
    """Its lines, as a plan frames them."""
    endpoint: str
    lane: Lane
    completion_window: str
    window: timedelta
    """The same as a time; its deadline counts from the database's clock."""
    metadata: dict[str, str]
    output_expires_seconds: int | None = None
    idempotency_key: str | None = None
    fingerprint: bytes | None = None
    """Of the request that the key stands for."""
    dedup: bool = True
    plan: bool = True
    cache: str | None = None
    cache_ttl_seconds: int | None = None

    def values(self) -> dict[str, Any]:
        """What the statement takes of it."""
        cut = self.cut
        return {
            "id": self.id,
            "tenant": self.tenant,
            "endpoint": self.endpoint,
            "lane": self.lane.value,
            "lane_rank": self.lane.rank,
            "completion_window": self.completion_window,
            "window": self.window,
            "metadata": json.dumps(self.metadata),
            "output_expires_seconds": self.output_expires_seconds,
            "idempotency_key": self.idempotency_key,
            "fingerprint": self.fingerprint,
            "dedup": self.dedup,
            "plan": self.plan,
            "cache": self.cache,
            "cache_ttl_seconds": self.cache_ttl_seconds,
            "model": cut.model,
            "plan_offset": cut.plan_offset,
            "plan_bytes": cut.plan_bytes,
            "lines": cut.lines,
            "first_line": cut.first_line,
            "last_line": cut.last_line,
            "tokens": cut.tokens,
            "inline": self.inline,
        }


def insert(conn: Connection, jobs: Sequence[NewJob]) -> list[Batch | None]:
    """Make these jobs; None stands for one whose idempotency key its tenant has used already."""
    values = [job.values() for job in jobs]
    rows = conn.execute(_INSERT, {name: [value[name] for value in values] for name in _TYPES})
    made = {batch.id: batch for batch in map(of_row, rows)}
    return [made.get(job.id) for job in jobs]
