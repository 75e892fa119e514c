"""Doors for waiting calls, objectives and measured facts of models, fair shares of lanes, pause, and poison calls."""

from alembic import op

revision = "0004"
down_revision = "0003"

TABLES = """
-- Where a gpu worker takes waiting calls, and how loaded it was at its last pulse. No door: no calls come to it.
alter table workers
    add column door text,
    add column region text not null default '',
    add column serves text[] not null default '{}',
    add column engine_slots int not null default 0,
    add column pulsed_at timestamptz,
    add column open boolean not null default false,
    add column calls int not null default 0,
    add column lines int not null default 0,
    add column budget int not null default 0,
    add column budget_reason text not null default '',
    add column tokens_per_second real not null default 0;

-- What an operator wants of a model's waiting calls, and what its settled slices taught about its lines.
alter table models
    add column ttft_p95_ms int check (ttft_p95_ms > 0),
    add column itl_p95_ms int check (itl_p95_ms > 0),
    add column bytes_per_token real check (bytes_per_token > 0),
    add column output_tokens real check (output_tokens >= 0),
    add column tokens_scale real check (tokens_scale > 0),
    add column measured_at timestamptz;

-- A tenant with weight 2 gets twice the tokens of one with weight 1 where both have work in one lane.
alter table tenants add column weight real not null default 1 check (weight > 0);

-- held: its batch is paused. promoted: its lane_rank is one lane above its own, since its slack ran out.
alter table slices
    add column held boolean not null default false,
    add column promoted boolean not null default false,
    add column done_at timestamptz,
    add check (lane_rank = array_position(array['priority', 'standard', 'flex'], lane) - 1 - promoted::int),
    add check (lane_rank >= 0),
    add check (state <> 'ready' or not held);
drop index slices_ready;
drop index slices_queued;
-- By account, as in shares below. A lane's accounts are found by skipping from one to the next.
create index slices_ready on slices (model, lane_rank, (case when promoted then '*' else tenant end), deadline, id)
    where state = 'ready';
create index slices_waiting on slices (model, lane_rank, (case when promoted then '*' else tenant end), deadline, id)
    where state in ('queued', 'ready') and not held;
create index slices_done on slices (model, done_at) where state = 'done';

-- Start-time fair queueing: what each tenant was served of a model's lane, in tokens over its weight. Tenant '' is the
-- lane's clock, and '*' stands for all work that was promoted into the lane.
create table shares (
    model text not null,
    lane_rank smallint not null,
    tenant text not null,
    served double precision not null,
    primary key (model, lane_rank, tenant)
);

-- Waiting calls that were in flight when an engine died, by a hash of tenant, endpoint and body.
create table call_suspects (
    fingerprint bytea primary key check (octet_length(fingerprint) = 32),
    deaths smallint not null check (deaths > 0),
    last_at timestamptz not null default clock_timestamp()
);
create index call_suspects_newest on call_suspects (last_at);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
