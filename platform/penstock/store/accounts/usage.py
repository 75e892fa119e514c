"""Usage: sums over what was recorded, wherever its rows are by now."""

from __future__ import annotations

import dataclasses
from collections.abc import Set
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text

from penstock.domain.accounts.cost import Cost
from penstock.domain.accounts.tokens import Usage
from penstock.domain.accounts.usage_report import UsageGroup, UsageRow

MOST_ROWS: Final = 10_000
"""Whole spans are read until there are so many rows."""

_USED = text("""
    -- A segment counts in the hour in which it was recorded. Swept ones are in usage_lines, by the same hour; one
    -- statement sees each in one of the two.
    with used as (
        -- A slice that is settled keeps the lane that it had.
        select date_trunc('hour', g.created_at, 'UTC') as hour, s.model as queue, true as batch,
               g.completed as requests, g.input_tokens, g.cached_tokens, g.output_tokens, g.reasoning_tokens,
               g.reused_output_tokens,
               g.gpu_microseconds, g.token_cost, g.gpu_cost, s.lane, b.api_key
        from segments g join slices s on s.id = g.slice join batches b on b.id = s.batch
        where s.tenant = :tenant and g.created_at >= :start and g.created_at < :stop
          and s.model is not null  -- skipped lines ask no model
        union all
        select hour, model as queue, true, requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
               reused_output_tokens, gpu_microseconds, token_cost, gpu_cost, lane, api_key
        from usage_lines where tenant = :tenant and hour >= :start and hour < :stop
        union all
        select hour, model as queue, false, requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
               reused_output_tokens, gpu_microseconds, token_cost, gpu_cost, null, api_key
        from usage_calls where tenant = :tenant and hour >= :start and hour < :stop),
    hours as (
        select hour, queue, batch, case when :by_lane then nullif(lane, '') end as lane,
               case when :by_key then nullif(api_key, '') end as api_key,
               sum(requests) as requests, sum(input_tokens) as input_tokens,
               sum(cached_tokens) as cached_tokens, sum(output_tokens) as output_tokens,
               sum(reasoning_tokens) as reasoning_tokens, sum(reused_output_tokens) as reused_output_tokens,
               sum(gpu_microseconds) as gpu_microseconds, sum(token_cost) as token_cost, sum(gpu_cost) as gpu_cost
        from used group by 1, 2, 3, 4, 5),
    named as (
        -- All versions of a model count as it. What was saved goes by the price that its hour ended with.
        select hours.*, coalesce(m.version_of, hours.queue) as model,
               hours.cached_tokens * (p.input - p.cached_input)::numeric
               + hours.reused_output_tokens * p.output::numeric as saved
        from hours left join models m on m.name = hours.queue
        left join lateral (
            select input, cached_input, output from prices
            where prices.model = hours.queue and valid_from < hours.hour + interval '1 hour'
            order by valid_from desc limit 1) p on true)
    select * from (
        select date_bin(:width, hour, :start) as start,
               case when :by_model then model end as model, case when :by_batch then batch end as batch, lane, api_key,
               (select name from api_keys k where k.id = api_key and k.tenant = :tenant) as key_name,
               sum(requests)::bigint as requests, sum(input_tokens)::bigint as input_tokens,
               sum(cached_tokens)::bigint as cached_tokens, sum(output_tokens)::bigint as output_tokens,
               sum(reasoning_tokens)::bigint as reasoning_tokens,
               sum(reused_output_tokens)::bigint as reused_output_tokens,
               sum(gpu_microseconds)::bigint as gpu_microseconds,
               sum(token_cost) as token_cost, sum(gpu_cost) as gpu_cost,
               coalesce(sum(saved), 0) as saved
        from named
        where cast(:models as text[]) is null or model = any(cast(:models as text[]))
        group by 1, 2, 3, 4, 5 order by 1 fetch first :most rows with ties) found
    order by start, model, batch, lane, api_key""")

_KEYS = text("""
    select api_key from usage_calls
    where tenant = :tenant and hour = date_trunc('hour', now(), 'UTC') and model = :model""")

_ADD_CALLS = text("""
    insert into usage_calls as u (tenant, model, api_key, hour, requests, input_tokens, cached_tokens, output_tokens,
                                  reasoning_tokens, reused_output_tokens, gpu_microseconds, token_cost, gpu_cost)
    -- Not for a tenant that is being erased, or is gone: a call may end long after that.
    select id, :model, :api_key, date_trunc('hour', now(), 'UTC'), :calls, :input_tokens, :cached_tokens,
           :output_tokens, :reasoning_tokens, :reused_output_tokens, 0, :cost, 0
    from tenants where id = :tenant and closed_at is null for key share
    on conflict (tenant, hour, model, api_key) do update set
        requests = u.requests + excluded.requests, input_tokens = u.input_tokens + excluded.input_tokens,
        cached_tokens = u.cached_tokens + excluded.cached_tokens,
        output_tokens = u.output_tokens + excluded.output_tokens,
        reasoning_tokens = u.reasoning_tokens + excluded.reasoning_tokens,
        reused_output_tokens = u.reused_output_tokens + excluded.reused_output_tokens,
        token_cost = u.token_cost + excluded.token_cost""")


def keys_of_hour(conn: Connection, tenant: str, model: str) -> set[str]:
    """The API keys whose calls of a model count apart in the present hour; '' is none."""
    return {row.api_key for row in conn.execute(_KEYS, {"tenant": tenant, "model": model})}


def add_calls(
    conn: Connection, tenant: str, model: str, calls: int, used: Usage, cost: int, api_key: str | None = None
) -> None:
    """Add so many waiting calls to the present hour."""
    values = {"tenant": tenant, "model": model, "calls": calls, "cost": cost, "api_key": api_key or ""}
    conn.execute(_ADD_CALLS, values | dataclasses.asdict(used))


def used(
    conn: Connection,
    tenant: str,
    *,
    start: datetime,
    stop: datetime,
    width: timedelta,
    by: Set[UsageGroup],
    models: list[str] | None,
) -> list[UsageRow]:
    """What the tenant used from `start` (a whole hour) to before `stop`, in spans of `width` that are not empty.

    With MOST_ROWS or more of them the last one's span is whole, and later ones may be missing.
    """
    values = {
        "tenant": tenant,
        "start": start,
        "stop": stop,
        "width": width,
        "by_model": UsageGroup.MODEL in by,
        "by_batch": UsageGroup.BATCH in by,
        "by_lane": UsageGroup.LANE in by,
        "by_key": UsageGroup.API_KEY in by,
        "models": models,
        "most": MOST_ROWS,
    }
    return [
        UsageRow(
            row.start,
            row.model,
            row.batch,
            row.lane,
            row.api_key,
            row.key_name,
            row.requests,
            Usage(
                row.input_tokens, row.cached_tokens, row.output_tokens, row.reasoning_tokens, row.reused_output_tokens
            ),
            Cost(row.gpu_microseconds, int(row.token_cost), int(row.gpu_cost)),
            int(row.saved),
        )
        for row in conn.execute(_USED, values)
    ]
