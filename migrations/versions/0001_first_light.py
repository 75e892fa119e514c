"""First light: tenants, keys, files, models, workers, batches, slices, leases, segments, events.

State columns are guarded by one trigger over the table `legal_moves`; CHECKs hold the shapes of rows.
"""

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
create table tenants (
    id text primary key,
    name text not null,
    created_at timestamptz not null default now()
);

create table api_keys (
    id text primary key,
    tenant text not null references tenants,
    name text not null check (length(name) between 1 and 200),
    hash bytea not null unique check (octet_length(hash) = 32),
    tail text not null,
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);

-- A model is known once it is configured, added, or was ever registered by a worker.
create table models (
    name text primary key check (length(name) between 1 and 200),
    source text not null check (source in ('added', 'registered')),
    created_at timestamptz not null default now()
);

-- One row for each start of a process; the id is its holder id in leases, never a host name.
create table workers (
    id uuid primary key,
    kind text not null check (kind in ('gpu', 'io', 'keeper')),
    model text references models,
    state text not null check (state in ('starting', 'ready', 'draining', 'gone')),
    slots int not null default 0,
    host text not null,
    pid int not null,
    started_at timestamptz not null default now(),
    seen_at timestamptz not null default now(),
    beaten_at timestamptz not null default now(),
    check ((kind = 'gpu') = (model is not null))
);
create index workers_live on workers (kind, model, seen_at) where state <> 'gone';

-- A blob that is being written or should be deleted: removed by the transaction that publishes it, else swept.
create table intents (
    blob_key text primary key,
    created_at timestamptz not null default now()
);

create table files (
    id text primary key,
    tenant text not null references tenants,
    purpose text not null check (purpose in ('batch', 'batch_output')),
    filename text not null,
    bytes bigint not null check (bytes >= 0),
    sha256 bytea not null check (octet_length(sha256) = 32),
    blob_key text not null unique,
    created_at timestamptz not null default now(),
    expires_at timestamptz
);
create index files_newest on files (tenant, created_at desc, id desc);

create table legal_moves (
    machine text not null check (machine in ('batch', 'slice')),
    was text not null,
    becomes text not null,
    primary key (machine, was, becomes)
);

create table batches (
    id text primary key,
    tenant text not null references tenants,
    kind text not null check (kind in ('batch', 'job')),
    inline boolean not null,
    state text not null,
    finish_as text check (finish_as in ('completed', 'cancelled', 'expired', 'failed')),
    endpoint text not null,
    model text,
    lane text not null check (lane in ('priority', 'standard', 'flex')),
    completion_window text not null,
    created_at timestamptz not null default now(),
    deadline timestamptz not null,
    in_progress_at timestamptz,
    finalizing_at timestamptz,
    completed_at timestamptz,
    failed_at timestamptz,
    expired_at timestamptz,
    cancelling_at timestamptz,
    cancelled_at timestamptz,
    metadata jsonb not null default '{}',
    input_file text,
    input_key text,
    output_file text,
    error_file text,
    output_expires_seconds int,
    plan_key text,
    total int not null default 0 check (total >= 0),
    completed int not null default 0 check (completed >= 0),
    failed int not null default 0 check (failed >= 0),
    input_tokens bigint not null default 0,
    cached_tokens bigint not null default 0,
    output_tokens bigint not null default 0,
    reasoning_tokens bigint not null default 0,
    errors jsonb not null default '[]',
    error_count int not null default 0,
    lease bigint,
    attempts int not null default 0,
    hinted_at timestamptz,
    idempotency_key text,
    fingerprint bytea,
    check (kind = 'job' or not inline),
    check (inline or input_key is not null),
    check (state not in ('cancelling', 'finalizing', 'completed', 'cancelled', 'expired', 'failed')
           or finish_as is not null),
    check (state not in ('completed', 'cancelled', 'expired') or finish_as = state),
    check (lease is null or state in ('validating', 'finalizing')),
    check (state not in ('completed', 'cancelled', 'expired') or completed + failed = total)
);
create index batches_newest on batches (tenant, kind, created_at desc, id desc);
create index batches_unfinished on batches (deadline)
    where state in ('validating', 'in_progress', 'paused', 'cancelling', 'finalizing');
create unique index batches_idempotent on batches (tenant, idempotency_key) where idempotency_key is not null;

create table slices (
    id bigint generated always as identity primary key,
    batch text not null references batches,
    tenant text not null references tenants,
    model text not null,
    lane text not null check (lane in ('priority', 'standard', 'flex')),
    lane_rank smallint not null,
    deadline timestamptz not null,
    state text not null,
    lease bigint,
    crashes int not null default 0,
    unreadable int not null default 0,
    plan_offset bigint not null,
    plan_bytes bigint not null check (plan_bytes > 0),
    lines int not null check (lines > 0),
    first_line int not null,
    last_line int not null,
    tokens bigint not null,
    inline bytea,
    completed int not null default 0 check (completed >= 0),
    failed int not null default 0 check (failed >= 0),
    input_tokens bigint not null default 0,
    cached_tokens bigint not null default 0,
    output_tokens bigint not null default 0,
    reasoning_tokens bigint not null default 0,
    ready_at timestamptz,
    check ((state = 'running') = (lease is not null)),
    check (completed + failed <= lines)
);
create index slices_ready on slices (model, lane_rank, deadline, id) where state = 'ready';
create index slices_queued on slices (model, lane_rank, deadline, id) where state = 'queued';
create index slices_batch on slices (batch, id);
create index slices_open on slices (batch) where state in ('queued', 'ready', 'running');

-- Who may write, for one slice, or for one batch's validation or assembly. The id is the fencing token.
create table leases (
    id bigint generated always as identity primary key,
    kind text not null check (kind in ('slice', 'validate', 'assemble')),
    slice bigint references slices,
    batch text not null references batches,
    holder uuid not null,
    nonce uuid not null unique,
    opened_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    closed_at timestamptz,
    closed_as text check (closed_as in ('settled', 'released', 'forgotten', 'reaped')),
    check ((kind = 'slice') = (slice is not null)),
    check ((closed_at is null) = (closed_as is null))
);
create index leases_open on leases (expires_at) where closed_at is null;
create index leases_of_holder on leases (holder) where closed_at is null;

-- Answers, in pieces. `lines` holds the line numbers, so what remains of a slice is known without a blob.
create table segments (
    id bigint generated always as identity primary key,
    slice bigint not null references slices,
    lease bigint not null references leases,
    seq int not null,
    blob_key text unique,
    data bytea,
    bytes int not null check (bytes > 0),
    lines int[] not null,
    failed_lines int[] not null,
    completed int not null,
    failed int not null,
    input_tokens bigint not null,
    cached_tokens bigint not null,
    output_tokens bigint not null,
    reasoning_tokens bigint not null,
    created_at timestamptz not null default now(),
    unique (slice, lease, seq),
    check ((blob_key is null) <> (data is null)),
    check (completed + failed = cardinality(lines) and failed = cardinality(failed_lines))
);

create table events (
    id text primary key,
    tenant text not null references tenants,
    batch text not null references batches,
    type text not null,
    created_at timestamptz not null default now(),
    unique (batch, type)
);

create function guard_moves() returns trigger language plpgsql as $$
begin
    if not exists (select from legal_moves
                   where machine = tg_argv[0] and was = old.state and becomes = new.state) then
        raise exception 'a %% that is %% may not become %%', tg_argv[0], old.state, new.state
            using errcode = 'check_violation', constraint = 'legal_moves';
    end if;
    return new;
end $$;

create trigger batches_move before update of state on batches
    for each row when (old.state is distinct from new.state) execute function guard_moves('batch');
create trigger slices_move before update of state on slices
    for each row when (old.state is distinct from new.state) execute function guard_moves('slice');

create function guard_ended() returns trigger language plpgsql as $$
begin
    raise exception 'batch %% has ended and never changes', old.id using errcode = 'check_violation';
end $$;

create trigger batches_ended before update on batches
    for each row when (old.state in ('completed', 'cancelled', 'expired', 'failed')) execute function guard_ended();
"""

# The same moves as penstock.domain; a test compares the two.
MOVES = {
    "batch": {
        "validating": "in_progress failed cancelling finalizing",
        "in_progress": "paused cancelling finalizing",
        "paused": "in_progress cancelling finalizing",
        "cancelling": "finalizing",
        "finalizing": "completed cancelled expired failed",
    },
    "slice": {
        "queued": "ready dropped",
        "ready": "queued running dropped",
        "running": "queued done dropped",
    },
}


def upgrade() -> None:
    connection = op.get_bind()
    connection.exec_driver_sql(TABLES)
    for machine, moves in MOVES.items():
        for was, becomes in moves.items():
            for state in becomes.split():
                connection.exec_driver_sql("insert into legal_moves values (%s, %s, %s)", (machine, was, state))


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
