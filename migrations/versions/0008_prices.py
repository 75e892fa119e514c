"""Prices from a time on, and cost: what recorded lines cost, in the rows that count them."""

from alembic import op

revision = "0008"
down_revision = "0007"

TABLES = """
-- Whole picounits (10^-12 of the currency) for one token and one GPU-microsecond: a price of 0.15 per million tokens is
-- 150,000 a token, 0.0008 per GPU-second 800 a microsecond. Costs are their products, so no sum is ever rounded.
-- A row never changes: a new price is a new row, and what was recorded under the old one keeps what it cost.
create table prices (
    id bigint generated always as identity primary key,
    model text not null references models,
    valid_from timestamptz not null,
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    input bigint not null check (input >= 0),
    cached_input bigint not null check (cached_input >= 0),
    output bigint not null check (output >= 0),
    gpu bigint not null check (gpu >= 0),
    created_at timestamptz not null default now(),
    unique (model, valid_from)
);

-- price: what the segment's lines were charged by; null if its model had none.
alter table segments
    add column price bigint references prices,
    add column gpu_microseconds bigint not null default 0 check (gpu_microseconds >= 0),
    add column token_cost numeric(38, 0) not null default 0,
    add column gpu_cost numeric(38, 0) not null default 0;
create index segments_time on segments (created_at);
alter table slices
    add column gpu_microseconds bigint not null default 0,
    add column token_cost numeric(38, 0) not null default 0,
    add column gpu_cost numeric(38, 0) not null default 0;
alter table batches
    add column gpu_microseconds bigint not null default 0,
    add column token_cost numeric(38, 0) not null default 0,
    add column gpu_cost numeric(38, 0) not null default 0;

-- Usage of segments that were swept: added by the statement that deletes them, so each counts once, here or there.
create table usage_lines (
    tenant text not null references tenants,
    model text not null,
    hour timestamptz not null,
    requests bigint not null,
    input_tokens bigint not null,
    cached_tokens bigint not null,
    output_tokens bigint not null,
    reasoning_tokens bigint not null,
    reused_output_tokens bigint not null,
    gpu_microseconds bigint not null,
    token_cost numeric(38, 0) not null,
    gpu_cost numeric(38, 0) not null,
    primary key (tenant, hour, model)
);

-- Usage of waiting calls, added every few seconds by each API process.
create table usage_calls (like usage_lines including constraints including indexes);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
