"""Webhooks: endpoints, what is owed to them, and how each attempt went."""

from alembic import op

revision = "0009"
down_revision = "0008"

TABLES = """
-- Where events go. One that names a batch is that batch's own: it gets nothing else, and is in no list.
-- The secret is kept as it is, since every delivery is signed with it; for a while after a rotation with both.
create table webhook_endpoints (
    id text primary key,
    tenant text not null references tenants,
    batch text unique references batches,
    name text not null check (length(name) <= 200),
    url text not null,
    receiver text not null,
    event_types text[] not null check (cardinality(event_types) > 0),
    secret text not null,
    old_secret text,
    old_until timestamptz,
    disabled_as text check (disabled_as in ('by_hand', 'gone', 'deleted')),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    check ((old_secret is null) = (old_until is null))
);
create index webhook_endpoints_newest on webhook_endpoints (tenant, created_at desc, id desc) where batch is null;

-- One row for each event and endpoint. A claim counts an attempt and sets next_at to its own end: if the claimant dies,
-- the row is due again by itself, and its late word is refused since the count has moved on.
create table deliveries (
    id text primary key,
    tenant text not null references tenants,
    endpoint text not null references webhook_endpoints,
    receiver text not null,
    event text not null,
    type text not null,
    object text not null,
    happened_at timestamptz not null,
    test boolean not null default false,
    state text not null default 'pending' check (state in ('pending', 'delivered', 'failed')),
    attempts int not null default 0,
    attempts_before int not null default 0,
    next_at timestamptz default clock_timestamp(),
    ended_at timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    unique (event, endpoint),
    check ((state = 'pending') = (next_at is not null)),
    check ((state = 'pending') = (ended_at is null)),
    check (attempts >= attempts_before)
);
-- Receivers are found by skipping from one to the next, so that one with a long backlog hides nobody.
create index deliveries_due on deliveries (receiver, next_at) where state = 'pending';
create index deliveries_newest on deliveries (tenant, created_at desc, id desc);
create index deliveries_of_object on deliveries (object);
create index deliveries_of_endpoint on deliveries (endpoint);
create index deliveries_old on deliveries (ended_at) where state <> 'pending';

create table delivery_attempts (
    delivery text not null references deliveries on delete cascade,
    number int not null,
    at timestamptz not null,
    status int,
    milliseconds int not null,
    answer bytea,
    error text,
    primary key (delivery, number)
);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
