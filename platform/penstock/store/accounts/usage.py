"""Usage: sums over what was recorded, wherever its rows are by now."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from penstock.domain.accounts.cost import Cost
from penstock.domain.accounts.tokens import Usage
from penstock.domain.accounts.usage_report import UsageRow

_USED = text("""
    -- A segment counts in the hour in which it was recorded. Swept ones are in usage_lines, by the same hour; one
    -- statement sees each in one of the two.
    with used as (
        select date_trunc('hour', g.created_at, 'UTC') as hour, s.model as queue, true as batch,
               g.completed as requests, g.input_tokens, g.cached_tokens, g.output_tokens, g.reasoning_tokens,
               g.reused_output_tokens,
               g.gpu_microseconds, g.token_cost, g.gpu_cost
        from segments g join slices s on s.id = g.slice
        where s.tenant = :tenant and g.created_at >= :start and g.created_at < :stop
          and s.model is not null  -- skipped lines ask no model
        union all
        select hour, model as queue, true, requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
               reused_output_tokens, gpu_microseconds, token_cost, gpu_cost
        from usage_lines where tenant = :tenant and hour >= :start and hour < :stop
        union all
        select hour, model as queue, false, requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
               reused_output_tokens, gpu_microseconds, token_cost, gpu_cost
        from usage_calls where tenant = :tenant and hour >= :start and hour < :stop),
    hours as (
        select hour, queue, batch, sum(requests) as requests, sum(input_tokens) as input_tokens,
               sum(cached_tokens) as cached_tokens, sum(output_tokens) as output_tokens,
               sum(reasoning_tokens) as reasoning_tokens, sum(reused_output_tokens) as reused_output_tokens,
               sum(gpu_microseconds) as gpu_microseconds, sum(token_cost) as token_cost, sum(gpu_cost) as gpu_cost
        from used group by hour, queue, batch),
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
    select date_bin(:width, hour, :start) as start,
           case when :by_model then model end as model, case when :by_batch then batch end as batch,
           sum(requests)::bigint as requests, sum(input_tokens)::bigint as input_tokens,
           sum(cached_tokens)::bigint as cached_tokens, sum(output_tokens)::bigint as output_tokens,
           sum(reasoning_tokens)::bigint as reasoning_tokens,
           sum(reused_output_tokens)::bigint as reused_output_tokens,
           sum(gpu_microseconds)::bigint as gpu_microseconds, sum(token_cost) as token_cost, sum(gpu_cost) as gpu_cost,
           coalesce(sum(saved), 0) as saved
    from named
    where cast(:models as text[]) is null or model = any(cast(:models as text[]))
    group by 1, 2, 3 order by 1, 2, 3""")

_ADD_CALLS = text("""
    insert into usage_calls as u (tenant, model, hour, requests, input_tokens, cached_tokens, output_tokens,
                                  reasoning_tokens, reused_output_tokens, gpu_microseconds, token_cost, gpu_cost)
    -- Not for a tenant that is being erased, or is gone: a call may end long after that.
    select id, :model, date_trunc('hour', now(), 'UTC'), :calls, :input_tokens, :cached_tokens, :output_tokens,
           :reasoning_tokens, :reused_output_tokens, 0, :cost, 0
    from tenants where id = :tenant and closed_at is null for key share
    on conflict (tenant, hour, model) do update set
        requests = u.requests + excluded.requests, input_tokens = u.input_tokens + excluded.input_tokens,
        cached_tokens = u.cached_tokens + excluded.cached_tokens,
        output_tokens = u.output_tokens + excluded.output_tokens,
        reasoning_tokens = u.reasoning_tokens + excluded.reasoning_tokens,
        reused_output_tokens = u.reused_output_tokens + excluded.reused_output_tokens,
        token_cost = u.token_cost + excluded.token_cost""")


def add_calls(conn: Connection, tenant: str, model: str, calls: int, used: Usage, cost: int) -> None:
    """Add so many waiting calls to the present hour."""
    conn.execute(
        _ADD_CALLS, {"tenant": tenant, "model": model, "calls": calls, "cost": cost, **dataclasses.asdict(used)}
    )


def used(
    conn: Connection,
    tenant: str,
    *,
    start: datetime,
    stop: datetime,
    width: timedelta,
    by_model: bool,
    by_batch: bool,
    models: list[str] | None,
) -> list[UsageRow]:
    """What the tenant used from `start` (a whole hour) to before `stop`, in spans of `width` that are not empty."""
    values = {
        "tenant": tenant,
        "start": start,
        "stop": stop,
        "width": width,
        "by_model": by_model,
        "by_batch": by_batch,
        "models": models,
    }
    return [
        UsageRow(
            row.start,
            row.model,
            row.batch,
            row.requests,
            Usage(
                row.input_tokens, row.cached_tokens, row.output_tokens, row.reasoning_tokens, row.reused_output_tokens
            ),
            Cost(row.gpu_microseconds, int(row.token_cost), int(row.gpu_cost)),
            int(row.saved),
        )
        for row in conn.execute(_USED, values)
    ]
