"""Pools: machines that serve more versions than fit at once, what each of them decided, and what its switches cost."""

from alembic import op

revision = "0028"
down_revision = "0027"
OLDEST = "0024"
"""An older API can't list a fleet that has a pool host in it: start one once all are of this release."""

TABLES = """
create table pools (
    name text primary key check (name ~ '^[a-z0-9][a-z0-9_-]{0,39}$'),
    kind text not null check (kind in ('dedicated', 'shared')),
    device text not null default '',
    region text not null default '',
    terms jsonb not null,
    memory_bytes bigint check (memory_bytes > 0),
    -- In picounits for a GPU-microsecond, as prices are; null: it has none.
    price bigint check (price >= 0),
    created_at timestamptz not null default now()
);

create table pool_versions (
    pool text not null references pools on delete cascade,
    queue text not null references model_versions (queue),
    on_demand boolean not null default false,
    pinned boolean not null default false,
    wake_asked_at timestamptz,
    memory_bytes bigint check (memory_bytes > 0),
    unfit_reason text,
    -- What a member measured here before it was put away; null: none has yet.
    tokens_per_second float8 check (tokens_per_second > 0),
    primary key (pool, queue)
);
create index pool_versions_queue on pool_versions (queue);

alter table workers drop constraint workers_kind_check,
    add check (kind in ('gpu', 'io', 'keeper', 'pool')),
    -- Of a pool host. Its pool may go first: the host hears so, and ends.
    add column pool text references pools on delete set null,
    -- When it last had lines or calls in its engine.
    add column busy_at timestamptz;
create index workers_of_pool on workers (pool) where pool is not null;

-- Of a host's versions those that were ever awake on it. since: when the state began; awake_at: it was ready last.
create table pool_residents (
    host uuid not null references workers on delete cascade,
    queue text not null references models,
    state text not null check (state in ('waking', 'awake', 'leaving', 'asleep', 'stopped')),
    member uuid,
    since timestamptz not null default clock_timestamp(),
    awake_at timestamptz,
    primary key (host, queue)
);

-- Who was served while a version was awake, and until when: their wait begins anew there.
create table pool_served (
    batch text not null references batches on delete cascade,
    queue text not null,
    until timestamptz not null,
    primary key (batch, queue)
);

create table pool_decisions (
    id bigint generated always as identity primary key,
    pool text not null references pools on delete cascade,
    host uuid not null,
    at timestamptz not null default clock_timestamp(),
    why text not null,
    leaves text,
    comes text,
    method text not null,
    details jsonb not null,
    state text not null check (state in ('decided', 'leaving', 'stopping', 'waking', 'probing', 'done', 'failed',
                                         'cancelled')),
    ended_at timestamptz,
    seconds float8,
    error text,
    check ((state in ('done', 'failed', 'cancelled')) = (ended_at is not null))
);
create index pool_decisions_newest on pool_decisions (pool, id desc);
create index pool_decisions_open on pool_decisions (pool) where ended_at is null;
create index pool_decisions_cancelled on pool_decisions (pool, ended_at) where state = 'cancelled';
create index pool_decisions_lately on pool_decisions (pool, at);

alter table legal_moves drop constraint legal_moves_machine_check,
    add check (machine in ('batch', 'slice', 'version', 'switch'));
insert into legal_moves values
    ('switch', 'decided', 'leaving'), ('switch', 'decided', 'waking'), ('switch', 'decided', 'stopping'),
    ('switch', 'decided', 'done'), ('switch', 'decided', 'failed'), ('switch', 'decided', 'cancelled'),
    ('switch', 'leaving', 'stopping'), ('switch', 'leaving', 'waking'), ('switch', 'leaving', 'failed'),
    ('switch', 'leaving', 'done'), ('switch', 'leaving', 'cancelled'),
    ('switch', 'stopping', 'waking'), ('switch', 'stopping', 'done'), ('switch', 'stopping', 'failed'),
    ('switch', 'waking', 'probing'), ('switch', 'waking', 'done'), ('switch', 'waking', 'failed'),
    ('switch', 'probing', 'waking'), ('switch', 'probing', 'done'), ('switch', 'probing', 'failed');
create trigger pool_decisions_move before update of state on pool_decisions
    for each row when (old.state is distinct from new.state) execute function guard_moves('switch');

-- How long a switch takes: a mean over the latest ten or so. An empty queue: a free place.
create table switch_costs (
    from_queue text not null,
    to_queue text not null,
    method text not null,
    device text not null,
    seconds float8 not null check (seconds >= 0),
    count int not null default 1,
    primary key (to_queue, device, from_queue, method)
);

-- Waiting calls that want an on-demand version, by the API process that holds them.
create table pool_wants (
    queue text not null references models on delete cascade,
    process uuid not null,
    since timestamptz not null,
    seen_at timestamptz not null,
    primary key (queue, process)
);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
