"""Member progress: what members of ensembles were asked and said of one batch, as the sums over its slices."""

from __future__ import annotations

from sqlalchemy import Connection, text

from penstock.domain.ensembles.member_progress import MemberProgress

_OF_BATCH = text("""
    -- A slice that was given up was asked as far as it got. By slices, of which one holds hundreds of lines.
    select e.name || '@v' || e.version as ensemble, s.member,
           coalesce(v.model || '@v' || v.number, s.model) as model,
           sum(case s.state when 'waiting' then 0 when 'dropped' then s.completed + s.failed else s.lines end)::bigint
               as asked,
           sum(s.completed)::bigint as answered, sum(s.failed)::bigint as failed,
           coalesce(sum(s.lines) filter (where s.state = 'waiting'), 0)::bigint as undecided
    from batches b join slices s on s.batch = b.id join ensembles e on e.id = s.ensemble
    left join model_versions v on v.queue = s.model
    where b.tenant = :tenant and b.kind = :kind and b.id = :batch and s.member is not null
    group by e.name, e.version, s.member, 3
    order by e.name, e.version, min(s.place), s.member, 3""")


def of_batch(conn: Connection, tenant: str, kind: str, batch: str) -> list[MemberProgress]:
    """Each member that lines of a tenant's batch go to, in the order of its ensemble; none of one without ensembles."""
    values = {"tenant": tenant, "kind": kind, "batch": batch}
    return [MemberProgress(**row._mapping) for row in conn.execute(_OF_BATCH, values)]
