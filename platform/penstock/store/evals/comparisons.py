"""Comparisons: their rows. What a holder writes names its lease."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, text

from penstock.domain.evals.comparison import Comparison, ComparisonState

_INSERT = text("""
    -- The same two runs are compared once: they never change.
    insert into eval_comparisons (id, tenant, eval, baseline, candidate, hinted_at)
    values (:id, :tenant, :eval, :baseline, :candidate, clock_timestamp())
    on conflict (baseline, candidate) do nothing
    returning id""")
_AGAIN = text("""
    -- One that failed is tried once more.
    update eval_comparisons set state = 'comparing', error = null, ended_at = null, attempts = 0,
           hinted_at = clock_timestamp()
    where tenant = :tenant and baseline = :baseline and candidate = :candidate and state = 'failed'
    returning id""")
_GET = text("select * from eval_comparisons where tenant = :tenant and id = :id")
_OF = text("""
    select * from eval_comparisons where tenant = :tenant and baseline = :baseline and candidate = :candidate""")
_COUNT = text("""
    select count(*) as whole, count(*) filter (where state = 'comparing') as open from eval_comparisons
    where tenant = :tenant""")
_FIND = text("select * from eval_comparisons where id = :id")
_END = text("""
    update eval_comparisons set state = :state, lease = null, lease_until = null, ended_at = clock_timestamp(),
           outcome = cast(:outcome as jsonb), error = cast(:error as jsonb)
    where id = :id and lease = :lease
    returning id""")


def insert(conn: Connection, tenant: str, *, id: str, eval: str, baseline: str, candidate: str) -> bool:
    """Insert a comparison, or try one again that failed; False if it is there already."""
    values = {"id": id, "tenant": tenant, "eval": eval, "baseline": baseline, "candidate": candidate}
    made = conn.execute(_INSERT, values).first() or conn.execute(_AGAIN, values).first()
    return made is not None


def get(conn: Connection, tenant: str, id: str) -> Comparison | None:
    """A tenant's comparison."""
    row = conn.execute(_GET, {"tenant": tenant, "id": id}).first()
    return _comparison(row) if row else None


def of(conn: Connection, tenant: str, *, baseline: str, candidate: str) -> Comparison | None:
    """The comparison of a tenant's two runs."""
    row = conn.execute(_OF, {"tenant": tenant, "baseline": baseline, "candidate": candidate}).first()
    return _comparison(row) if row else None


def count(conn: Connection, tenant: str) -> tuple[int, int]:
    """How many comparisons a tenant has, and how many of them have not ended."""
    row = conn.execute(_COUNT, {"tenant": tenant}).one()
    return row.whole, row.open


def find(conn: Connection, id: str) -> Comparison | None:
    """A comparison by its id alone: for the platform's own work."""
    row = conn.execute(_FIND, {"id": id}).first()
    return _comparison(row) if row else None


def end(
    conn: Connection,
    id: str,
    lease: int,
    state: ComparisonState,
    *,
    outcome: Mapping[str, Any] | None = None,
    error: Mapping[str, str] | None = None,
) -> bool:
    """End a comparison; False if the lease is not its own any more."""
    values = {
        "id": id,
        "lease": lease,
        "state": str(state),
        "outcome": None if outcome is None else json.dumps(outcome),
        "error": None if error is None else json.dumps(error),
    }
    return conn.execute(_END, values).first() is not None


def _comparison(row: Row[Any]) -> Comparison:
    return Comparison(
        id=row.id,
        tenant=row.tenant,
        eval=row.eval,
        baseline=row.baseline,
        candidate=row.candidate,
        state=ComparisonState(row.state),
        created_at=row.created_at,
        outcome=row.outcome,
        error=row.error,
        ended_at=row.ended_at,
    )
