"""Runs: their rows, and the moves of their state. What a holder writes names its lease."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, text

from penstock.domain.evals.run import EvalRun, RunState, RunTerms
from penstock.domain.idempotency import Once, fingerprint_of, key_of
from penstock.domain.models.version import label
from penstock.store import cursors
from penstock.store.cursors import ListPlace

OPEN = "('preparing', 'running', 'scoring', 'embedding')"

_INSERT = text("""
    insert into eval_runs (id, tenant, eval, name, model, batch, owns_batch, changes, lane, completion_window,
                           allowed_models, api_key, metadata, idempotency_key, fingerprint, hinted_at)
    values (:id, :tenant, :eval, :name, :model, :batch, :owns_batch, cast(:changes as jsonb), :lane,
            :completion_window, cast(:allowed_models as text[]), :api_key, cast(:metadata as jsonb),
            :idempotency_key, :fingerprint, clock_timestamp())
    on conflict (tenant, idempotency_key) where idempotency_key is not null do nothing
    returning id""")
_BY_KEY = text("select id, fingerprint from eval_runs where tenant = :tenant and idempotency_key = :key")
_GET = text("select * from eval_runs where tenant = :tenant and id = :id")
_LOCK = text("select * from eval_runs where tenant = :tenant and id = :id for update")
_FIND = text("select * from eval_runs where id = :id")
_PAGE = text("""
    select * from eval_runs where tenant = :tenant and eval = :eval
      and (cast(:after_at as timestamptz) is null or (created_at, id) < (:after_at, :after))
    order by created_at desc, id desc limit :limit""")
_COUNT = text("select count(*) from eval_runs where tenant = :tenant")
_COUNT_OPEN = text(f"select count(*) from eval_runs where tenant = :tenant and state in {OPEN}")
_OPEN_OF = text(f"select id from eval_runs where tenant = :tenant and eval = :eval and state in {OPEN} limit 1")
_MOVE = text("""
    -- Only its present holder moves it on, and gives it back with that.
    update eval_runs set state = :state, lease = null, lease_until = null, attempts = 0,
           hinted_at = case when :state = 'scoring' then clock_timestamp() end, scored = 0,
           batch = coalesce(:batch, batch), embeddings = coalesce(:embeddings, embeddings)
    where id = :id and lease = :lease
    returning id""")
_END = text("""
    update eval_runs set state = :state, lease = null, lease_until = null, ended_at = clock_timestamp(),
           outcome = cast(:outcome as jsonb), error = cast(:error as jsonb), result_file = :result_file,
           scored = coalesce(:scored, scored)
    where id = :id and lease = :lease
    returning id""")
_CANCEL = text(f"""
    -- Whoever works on it hears that its lease is gone when it prolongs it, or writes.
    update eval_runs set state = 'cancelled', lease = null, lease_until = null, ended_at = clock_timestamp()
    where tenant = :tenant and id = :id and state in {OPEN}
    returning id""")
_MOVE_ON = text("""
    -- Those whose batch has ended, or is gone: an io worker's turn.
    update eval_runs set state = 'scoring', attempts = 0, scored = 0, hinted_at = clock_timestamp()
    where id = any(array(
        select r.id from eval_runs r
        left join batches b on b.id = case r.state when 'running' then r.batch else r.embeddings end
        where r.state in ('running', 'embedding')
          and (b.id is null or b.state in ('completed', 'cancelled', 'expired', 'failed'))
        order by r.created_at limit :limit for no key update of r skip locked))
    returning id""")

_DELETE = text("""
    -- Rows go, their comparisons with them, and the bytes of their results are due for deletion in one step.
    with gone as (
        delete from eval_runs where tenant = :tenant and id = any(cast(:ids as text[])) returning tenant, result_file),
    files_gone as (
        delete from files f using gone where f.tenant = gone.tenant and f.id = gone.result_file returning f.blob_key),
    doomed as (
        insert into intents (blob_key, doomed_at) select blob_key, clock_timestamp() from files_gone
        on conflict (blob_key) do nothing)
    select count(*) from gone""")
_OF_EVAL = text("select id from eval_runs where tenant = :tenant and eval = :eval limit :limit")
_OLD = text("""
    -- From tenant to tenant, each by the time that it keeps batches: a comparison with null is no row.
    select old.id, old.tenant from tenants t cross join lateral (
        select r.id, r.tenant from eval_runs r
        where r.tenant = t.id
          and r.ended_at < clock_timestamp() - coalesce(t.batch_retention_days * interval '1 day',
                                                        cast(:after as interval))
        order by r.ended_at limit :limit for update of r skip locked) old
    limit :limit""")
_BEST = text("""
    -- The best lower bound that a completed run of this version has for a scorer: of the eval's own lines, unchanged
    -- and all of them. What a batch asked may be its model, or an alias of it; a name with an @ may be another model's.
    select max((score ->> 'low')::float8)
    from eval_runs r join evals e on e.id = r.eval and e.tenant = r.tenant
    left join batches b on b.tenant = r.tenant and b.id = r.batch
    cross join lateral jsonb_array_elements(r.outcome -> 'scores') as score
    where r.tenant = :tenant and r.eval = :eval and r.state = 'completed' and score ->> 'name' = :scorer
      and r.changes = '{}' and e.input_file is not null
      and (r.owns_batch or (b.state = 'completed' and b.input_file = e.input_file and b.parent is null))
      and (r.model = :named or (
          b.versions = jsonb_build_object(coalesce(b.model, ''), jsonb_build_array(cast(:number as int)))
          and (b.model = :model or (
              starts_with(b.model, cast(:model as text) || '@')
              and strpos(substr(b.model, length(cast(:model as text)) + 2), '@') = 0
              and not exists (select from models m where m.name = b.model and m.version_of is null)))))""")


def insert(conn: Connection, tenant: str, new: EvalRun, once: Once | None) -> bool:
    """Insert a run that waits to be prepared; False if its tenant has one with this idempotency key already."""
    terms = new.terms
    values = {
        "id": new.id,
        "tenant": tenant,
        "eval": new.eval,
        "name": new.name,
        "model": terms.model,
        "batch": terms.batch,
        "owns_batch": new.owns_batch,
        "changes": json.dumps(dict(terms.changes)),
        "lane": terms.lane,
        "completion_window": terms.completion_window,
        "allowed_models": None if terms.allowed_models is None else sorted(terms.allowed_models),
        "api_key": terms.api_key,
        "metadata": json.dumps(new.metadata),
        "idempotency_key": key_of(once),
        "fingerprint": fingerprint_of(once),
    }
    return conn.execute(_INSERT, values).first() is not None


def by_idempotency_key(conn: Connection, tenant: str, key: str) -> tuple[str, bytes] | None:
    """The run that this key made, and the fingerprint of its create."""
    row = conn.execute(_BY_KEY, {"tenant": tenant, "key": key}).first()
    return (row.id, bytes(row.fingerprint)) if row else None


def get(conn: Connection, tenant: str, id: str) -> EvalRun | None:
    """A tenant's run."""
    row = conn.execute(_GET, {"tenant": tenant, "id": id}).first()
    return _run(row) if row else None


def lock(conn: Connection, tenant: str, id: str) -> EvalRun | None:
    """The same, locked."""
    row = conn.execute(_LOCK, {"tenant": tenant, "id": id}).first()
    return _run(row) if row else None


def find(conn: Connection, id: str) -> EvalRun | None:
    """A run by its id alone: for the platform's own work."""
    row = conn.execute(_FIND, {"id": id}).first()
    return _run(row) if row else None


def page(conn: Connection, tenant: str, eval: str, *, after: ListPlace | None, limit: int) -> list[EvalRun]:
    """The runs of a tenant's eval, newest first, after this place."""
    rows = conn.execute(_PAGE, {"tenant": tenant, "eval": eval, "limit": limit} | cursors.values(after))
    return [_run(row) for row in rows]


def count(conn: Connection, tenant: str) -> tuple[int, int]:
    """How many runs a tenant has, and how many of them have not ended."""
    whole, still_open = (conn.execute(one, {"tenant": tenant}).scalar_one() for one in (_COUNT, _COUNT_OPEN))
    return int(whole), int(still_open)


def open_of(conn: Connection, tenant: str, eval: str) -> str | None:
    """A run of this eval that has not ended, if there is one."""
    found: str | None = conn.execute(_OPEN_OF, {"tenant": tenant, "eval": eval}).scalar()
    return found


def move(
    conn: Connection, id: str, lease: int, state: RunState, *, batch: str | None = None, embeddings: str | None = None
) -> bool:
    """Move a run on; False if the lease is not its own any more."""
    values = {"id": id, "lease": lease, "state": str(state), "batch": batch, "embeddings": embeddings}
    return conn.execute(_MOVE, values).first() is not None


def end(
    conn: Connection,
    id: str,
    lease: int,
    state: RunState,
    *,
    outcome: Mapping[str, Any] | None = None,
    result_file: str | None = None,
    error: Mapping[str, str] | None = None,
    scored: int | None = None,
) -> bool:
    """End a run; False if the lease is not its own any more."""
    values = {
        "id": id,
        "lease": lease,
        "state": str(state),
        "outcome": None if outcome is None else json.dumps(outcome),
        "error": None if error is None else json.dumps(error),
        "result_file": result_file,
        "scored": scored,
    }
    return conn.execute(_END, values).first() is not None


def cancel(conn: Connection, tenant: str, id: str) -> bool:
    """End a tenant's run as cancelled; False if it has ended."""
    return conn.execute(_CANCEL, {"tenant": tenant, "id": id}).first() is not None


def move_on(conn: Connection, *, limit: int) -> list[str]:
    """Let runs be scored whose batch has ended; which."""
    return [row.id for row in conn.execute(_MOVE_ON, {"limit": limit})]


def delete(conn: Connection, tenant: str, ids: Sequence[str]) -> int:
    """Delete a tenant's runs with their results and comparisons; how many."""
    return int(conn.execute(_DELETE, {"tenant": tenant, "ids": list(ids)}).scalar_one())


def of_eval(conn: Connection, tenant: str, eval: str, *, limit: int) -> list[str]:
    """Some runs of an eval."""
    return [row.id for row in conn.execute(_OF_EVAL, {"tenant": tenant, "eval": eval, "limit": limit})]


def old(conn: Connection, *, after: timedelta | None, limit: int) -> list[tuple[str, str]]:
    """Lock runs that ended longer ago than their tenant keeps batches: each with its tenant.

    A tenant without a time of its own has `after`; None: until they are deleted.
    """
    return [(row.tenant, row.id) for row in conn.execute(_OLD, {"after": after, "limit": limit})]


def best_low(conn: Connection, tenant: str, *, eval: str, model: str, number: int, scorer: str) -> float | None:
    """The best lower bound that a completed run of this version has for a scorer; None if there is none."""
    named = f"{model}@{label(number)}"
    values = {"tenant": tenant, "eval": eval, "model": model, "number": number, "named": named, "scorer": scorer}
    found: float | None = conn.execute(_BEST, values).scalar()
    return found


def _run(row: Row[Any]) -> EvalRun:
    terms = RunTerms(
        model=row.model,
        batch=None if row.owns_batch else row.batch,
        changes=row.changes,
        lane=row.lane,
        completion_window=row.completion_window,
        allowed_models=None if row.allowed_models is None else frozenset(row.allowed_models),
        api_key=row.api_key,
    )
    return EvalRun(
        id=row.id,
        tenant=row.tenant,
        eval=row.eval,
        name=row.name,
        state=RunState(row.state),
        terms=terms,
        created_at=row.created_at,
        batch=row.batch,
        embeddings=row.embeddings,
        scored=row.scored,
        outcome=row.outcome,
        result_file=row.result_file,
        error=row.error,
        ended_at=row.ended_at,
        metadata=row.metadata,
    )
