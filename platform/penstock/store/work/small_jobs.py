"""Small jobs: a row of batches and its one slice, in progress at once; any number of them in one statement."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, text

from penstock.domain.work.batch import Batch
from penstock.domain.work.new_batch import NewJob
from penstock.store.batches.batches import of_row, to_row

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
    "api_key": "text",
    "asked_model": "text",
    "versions": "text",
    "model": "text",
    "plan_offset": "bigint",
    "plan_bytes": "bigint",
    "lines": "int",
    "first_line": "int",
    "last_line": "int",
    "tokens": "bigint",
    "inline": "bytea",
    "asked": "text",
    "adapter": "text",
    "ensemble": "bigint",
    "member": "text",
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
                             dedup, plan, cache, cache_ttl_seconds, api_key, versions)
        select id, tenant, 'job', true, 'in_progress', endpoint, asked_model, lane, completion_window,
               now() + "window", cast(metadata as jsonb), output_expires_seconds, lines, now(),
               idempotency_key, fingerprint, dedup, plan, cache, cache_ttl_seconds, api_key, cast(versions as jsonb)
        from given
        on conflict (tenant, idempotency_key) where idempotency_key is not null do nothing
        returning *),
    cut as (
        insert into slices (batch, tenant, model, lane, lane_rank, deadline, state, plan_offset, plan_bytes,
                            lines, first_line, last_line, tokens, inline, asked, adapter, ensemble, member)
        select id, g.tenant, g.model, g.lane, lane_rank, made.deadline, 'queued', plan_offset, plan_bytes,
               lines, first_line, last_line, tokens, g.inline, g.asked, g.adapter, g.ensemble, g.member
        from given g join made using (id))
    select made.*, 0 as live_completed, 0 as live_failed, 0 as live_empty, cast('{{}}' as int[]) as live_empty_lines,
           0 as live_input_tokens, 0 as live_cached_tokens, 0 as live_output_tokens, 0 as live_reasoning_tokens,
           0 as live_reused_output_tokens, 0 as live_gpu_microseconds, 0 as live_token_cost, 0 as live_gpu_cost,
           0 as live_equal_input_tokens, 0 as live_shared_input_tokens, 0 as live_shared_output_tokens,
           0 as live_prefix_saved, 0 as live_equal_saved, 0 as live_shared_saved,
           (select currency from prices limit 1) as currency
    from made""")


def _pinned(versions: Mapping[str, int]) -> str | None:
    return json.dumps({asked: [number] for asked, number in versions.items()}) if versions else None


def insert(conn: Connection, jobs: Sequence[NewJob]) -> list[Batch | None]:
    """Make these jobs; None stands for one whose idempotency key its tenant has used already."""
    values = [
        {
            **to_row(job.batch),
            **vars(job.cut),
            "ensemble": job.cut.ensemble,
            "member": job.cut.member,
            "inline": job.inline,
            "asked_model": job.asked,
            "versions": _pinned(job.versions),
        }
        for job in jobs
    ]
    rows = conn.execute(_INSERT, {name: [value[name] for value in values] for name in _TYPES})
    made = {batch.id: batch for batch in map(of_row, rows)}
    return [made.get(job.batch.id) for job in jobs]
