"""Ingresses: what the rows of gpu workers say about taking waiting calls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Connection, text

from penstock.domain.calls.ingress import Ingress, Load, Slo

_ANNOUNCE = text("""
    update workers set ingress_url = :url, region = :region, serves = :serves, engine_slots = :slots,
        revision = :revision where id = :id""")

_PULSE = text("""
    -- A worker that is gone, or draining, stays so: a load report that was under way says nothing about that.
    update workers w set seen_at = clock_timestamp(), load_reported_at = clock_timestamp(),
        open = :open and w.state = 'ready', calls = :calls, lines = :lines, budget = :budget,
        budget_reason = :reason, tokens_per_second = :tokens_per_second,
        engine_report = coalesce(cast(:engine as jsonb), engine_report),
        busy_at = case when :calls > 0 or :lines > 0 then clock_timestamp() else busy_at end
    from models m left join models named on named.name = m.version_of
    where w.id = :id and m.name = w.model
    -- A version that promises nothing of its own keeps what its name promises.
    returning coalesce(m.ttft_p95_ms, named.ttft_p95_ms) as ttft_p95_ms,
              coalesce(m.itl_p95_ms, named.itl_p95_ms) as itl_p95_ms""")

_PAGE = text("""
    select id, model, serves, ingress_url, region, engine_slots, open, calls, lines, budget, budget_reason,
           tokens_per_second, revision, lacks,
           exists (select from pool_residents r join workers h on h.id = r.host join pools p on p.name = h.pool
                   where r.member = w.id and p.kind = 'shared') as shared
    from workers w
    where kind = 'gpu' and ingress_url is not null and state = 'ready' and load_reported_at > clock_timestamp() - :gone
    order by id""")


def announce(
    conn: Connection, id: UUID, *, url: str, region: str, serves: Sequence[str], slots: int, revision: str
) -> None:
    """Say where a worker takes calls, for which names, and what makes its engine's answers its own."""
    values = {"id": id, "url": url, "region": region, "serves": list(serves), "slots": slots, "revision": revision}
    conn.execute(_ANNOUNCE, values)


def pulse(conn: Connection, id: UUID, load: Load) -> Slo:
    """Note a worker's load; what its model's callers were promised."""
    engine = None if load.engine is None else json.dumps(load.engine.json())
    row = conn.execute(_PULSE, {"id": id, **vars(load), "engine": engine}).first()
    return Slo(row.ttft_p95_ms, row.itl_p95_ms) if row else Slo()


def page(conn: Connection, *, gone: timedelta) -> list[Ingress]:
    """Ingresses of ready workers whose last load report is not older than this."""
    return [
        Ingress(
            worker=row.id,
            model=row.model,
            serves=tuple(row.serves) or (row.model,),
            url=row.ingress_url,
            region=row.region,
            slots=row.engine_slots,
            load=Load(row.open, row.calls, row.lines, row.budget, row.budget_reason, row.tokens_per_second),
            revision=row.revision,
            lacks=tuple(row.lacks),
            shared=row.shared,
        )
        for row in conn.execute(_PAGE, {"gone": gone})
    ]
