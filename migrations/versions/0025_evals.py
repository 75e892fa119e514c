"""Evals: what answers are measured by, runs over batches, and comparisons of two runs."""

from alembic import op

revision = "0025"
down_revision = "0024"
OLDEST = "0021"
"""Only tables, a sequence and a column that others do not read are new: older processes go on beside them."""

EVALS = """
-- The fencing token of runs and comparisons: it only ever grows.
create sequence eval_leases;

create table evals (
    id text primary key,
    tenant text not null references tenants,
    name text not null,
    -- What a run of a model asks, of which endpoint; null: only batches that have ended are scored.
    input_file text,
    endpoint text,
    reference_file text,
    scorers jsonb not null,
    metadata jsonb not null default '{}',
    created_at timestamptz not null default clock_timestamp(),
    idempotency_key text,
    fingerprint bytea,
    check ((input_file is null) = (endpoint is null))
);
create unique index evals_idempotent on evals (tenant, idempotency_key) where idempotency_key is not null;
create index evals_of_tenant on evals (tenant, created_at desc, id desc);
"""

# Files and batches are named, not referred to: they go by times of their own, and a run says so when it needs them.
RUNS = """
create table eval_runs (
    id text primary key,
    tenant text not null references tenants,
    eval text not null references evals,
    name text not null,
    model text,
    changes jsonb not null default '{}',
    lane text not null,
    completion_window text not null,
    allowed_models text[],
    metadata jsonb not null default '{}',
    owns_batch boolean not null,
    batch text,
    embeddings text,
    state text not null default 'preparing' check (
        state in ('preparing', 'running', 'scoring', 'embedding', 'completed', 'failed', 'cancelled')),
    scored int not null default 0,
    outcome jsonb check (outcome is null or state = 'completed'),
    result_file text,
    error jsonb check ((error is not null) = (state = 'failed')),
    created_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz check ((ended_at is not null) = (state in ('completed', 'failed', 'cancelled'))),
    lease bigint,
    lease_until timestamptz check ((lease is null) = (lease_until is null)),
    attempts int not null default 0,
    hinted_at timestamptz,
    idempotency_key text,
    fingerprint bytea,
    check (lease is null or state in ('preparing', 'scoring')),
    check ((model is not null) = owns_batch),
    check (batch is not null or state in ('preparing', 'failed', 'cancelled'))
);
create unique index eval_runs_idempotent on eval_runs (tenant, idempotency_key) where idempotency_key is not null;
create index eval_runs_of on eval_runs (eval, created_at desc, id desc);
create index eval_runs_open on eval_runs (tenant, state)
    where state in ('preparing', 'running', 'scoring', 'embedding');
create index eval_runs_of_tenant on eval_runs (tenant, ended_at);

create function eval_run_moves() returns trigger language plpgsql as $$
begin
    if old.state in ('completed', 'failed', 'cancelled') and new is distinct from old
       or old.state <> new.state and not (
            old.state = 'preparing' and new.state in ('running', 'scoring', 'failed', 'cancelled')
            or old.state = 'running' and new.state in ('scoring', 'cancelled')
            or old.state = 'scoring' and new.state in ('embedding', 'completed', 'failed', 'cancelled')
            or old.state = 'embedding' and new.state in ('scoring', 'cancelled')) then
        raise exception using errcode = 'check_violation',
            message = 'eval run ' || old.id || ' is ' || old.state || ' and can''t become ' || new.state;
    end if;
    return new;
end $$;
create trigger eval_run_moves before update on eval_runs for each row execute function eval_run_moves();
"""

COMPARISONS = """
create table eval_comparisons (
    id text primary key,
    tenant text not null references tenants,
    eval text not null references evals,
    baseline text not null references eval_runs on delete cascade,
    candidate text not null references eval_runs on delete cascade,
    state text not null default 'comparing' check (state in ('comparing', 'completed', 'failed')),
    outcome jsonb check ((outcome is not null) = (state = 'completed')),
    error jsonb check ((error is not null) = (state = 'failed')),
    created_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz check ((ended_at is not null) = (state <> 'comparing')),
    lease bigint,
    lease_until timestamptz check ((lease is null) = (lease_until is null)),
    attempts int not null default 0,
    hinted_at timestamptz,
    unique (baseline, candidate),
    check (baseline <> candidate),
    check (lease is null or state = 'comparing')
);
create index eval_comparisons_open on eval_comparisons (created_at) where state = 'comparing';
create index eval_comparisons_of on eval_comparisons (eval, created_at desc, id desc);
create index eval_comparisons_of_tenant on eval_comparisons (tenant);
create index eval_comparisons_of_candidate on eval_comparisons (candidate);
"""

PLACES = """
create trigger keep_place after delete on {table}
    referencing old table as deleted for each statement execute function keep_place();
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(EVALS)
    op.get_bind().exec_driver_sql(RUNS)
    op.get_bind().exec_driver_sql(COMPARISONS)
    op.get_bind().exec_driver_sql("".join(PLACES.format(table=table) for table in ("evals", "eval_runs")))


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
