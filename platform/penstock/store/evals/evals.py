"""Evals: what answers are measured by."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, Row, text

from penstock.domain.evals.run import Eval
from penstock.domain.evals.scorer import Scorer
from penstock.domain.idempotency import Once, fingerprint_of, key_of
from penstock.store import cursors
from penstock.store.cursors import ListPlace

_INSERT = text("""
    -- A second create with the same idempotency key inserts nothing.
    insert into evals (id, tenant, name, input_file, endpoint, reference_file, scorers, metadata, idempotency_key,
                       fingerprint)
    values (:id, :tenant, :name, :input_file, :endpoint, :reference_file, cast(:scorers as jsonb),
            cast(:metadata as jsonb), :idempotency_key, :fingerprint)
    on conflict (tenant, idempotency_key) where idempotency_key is not null do nothing
    returning id""")
_SELECT = """
    select e.*, (select count(*)::int from eval_runs r where r.eval = e.id) as runs from evals e
    where e.tenant = :tenant"""
_GET = text(_SELECT + " and e.id = :id")
_LOCK = text("select id from evals where tenant = :tenant and id = :id for update")
_SHARE = text("select id from evals where tenant = :tenant and id = :id for key share")
_BY_KEY = text("select id, fingerprint from evals where tenant = :tenant and idempotency_key = :key")
_PAGE = text(
    _SELECT
    + """
      and (cast(:after_at as timestamptz) is null or (e.created_at, e.id) < (:after_at, :after))
    order by e.created_at desc, e.id desc limit :limit"""
)
_COUNT = text("select count(*) from evals where tenant = :tenant")
_DELETE = text("delete from evals where tenant = :tenant and id = :id")


def insert(conn: Connection, tenant: str, new: Eval, once: Once | None) -> bool:
    """Insert an eval; False if its tenant has one with this idempotency key already."""
    values = {
        "id": new.id,
        "tenant": tenant,
        "name": new.name,
        "input_file": new.input_file,
        "endpoint": new.endpoint,
        "reference_file": new.reference_file,
        "scorers": json.dumps([one.as_json() for one in new.scorers]),
        "metadata": json.dumps(new.metadata),
        "idempotency_key": key_of(once),
        "fingerprint": fingerprint_of(once),
    }
    return conn.execute(_INSERT, values).first() is not None


def by_idempotency_key(conn: Connection, tenant: str, key: str) -> tuple[str, bytes] | None:
    """The eval that this key made, and the fingerprint of its create."""
    row = conn.execute(_BY_KEY, {"tenant": tenant, "key": key}).first()
    return (row.id, bytes(row.fingerprint)) if row else None


def get(conn: Connection, tenant: str, id: str) -> Eval | None:
    """A tenant's eval."""
    row = conn.execute(_GET, {"tenant": tenant, "id": id}).first()
    return _eval(row) if row else None


def lock(conn: Connection, tenant: str, id: str) -> bool:
    """Lock a tenant's eval for its deletion; False if there is none."""
    return conn.execute(_LOCK, {"tenant": tenant, "id": id}).first() is not None


def share(conn: Connection, tenant: str, id: str) -> bool:
    """Keep a tenant's eval from being deleted before this transaction ends; False if there is none."""
    return conn.execute(_SHARE, {"tenant": tenant, "id": id}).first() is not None


def page(conn: Connection, tenant: str, *, after: ListPlace | None, limit: int) -> list[Eval]:
    """A tenant's evals, newest first, after this place."""
    rows = conn.execute(_PAGE, {"tenant": tenant, "limit": limit} | cursors.values(after))
    return [_eval(row) for row in rows]


def count(conn: Connection, tenant: str) -> int:
    """How many a tenant has."""
    return int(conn.execute(_COUNT, {"tenant": tenant}).scalar_one())


def delete(conn: Connection, tenant: str, id: str) -> None:
    """Delete an eval of which no run is left."""
    conn.execute(_DELETE, {"tenant": tenant, "id": id})


def _eval(row: Row[Any]) -> Eval:
    return Eval(
        id=row.id,
        tenant=row.tenant,
        name=row.name,
        scorers=tuple(map(Scorer.of_json, row.scorers)),
        created_at=row.created_at,
        input_file=row.input_file,
        endpoint=row.endpoint,
        reference_file=row.reference_file,
        metadata=row.metadata,
        runs=row.runs,
    )
