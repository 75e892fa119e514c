"""Member progress: what members of ensembles were asked and said of one batch, as the sums over its slices."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, text

from penstock.domain.ensembles.member_progress import MemberProgress
from penstock.store.models import ensembles

_OF_BATCH = text("""
    -- A slice that was given up was asked as far as it got. By slices, of which one holds hundreds of lines.
    select e.name || '@v' || e.version as ensemble, e.definition::text as definition, s.member, s.place,
           coalesce(v.model || '@v' || v.number, s.model) as model,
           sum(case s.state when 'waiting' then 0 when 'dropped' then s.completed + s.failed else s.lines end)::bigint
               as asked,
           sum(s.completed)::bigint as answered, sum(s.failed)::bigint as failed,
           coalesce(sum(s.lines) filter (where s.state = 'waiting'), 0)::bigint as undecided
    from batches b join slices s on s.batch = b.id join ensembles e on e.id = s.ensemble
    left join model_versions v on v.queue = s.model
    where b.tenant = :tenant and b.kind = :kind and b.id = :batch and s.member is not null
    group by e.id, e.name, e.version, s.member, s.place, 5
    order by e.name, e.version, s.place, s.member, 5""")


def of_batch(conn: Connection, tenant: str, kind: str, batch: str) -> list[MemberProgress]:
    """Each member that lines of a tenant's batch go to, in the order of its ensemble; none of one without ensembles."""
    values = {"tenant": tenant, "kind": kind, "batch": batch}
    return [_of_row(row) for row in conn.execute(_OF_BATCH, values)]


def _of_row(row: Row[Any]) -> MemberProgress:
    found = dict(row._mapping)
    definition, member, place = (found.pop(name) for name in ("definition", "member", "place"))
    label = member if place is None else ensembles.definition(definition).asked[place].label
    return MemberProgress(member=label, **found)
