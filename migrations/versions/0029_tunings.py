"""Tunings: how fast one way to start a model is on one type of device; and which device a worker has."""

from alembic import op

revision = "0029"
down_revision = "0028"
OLDEST = "0024"

TABLES = """
create table tunings (
    -- A hash over model, engine, source and arguments: what was started.
    key text not null,
    device text not null check (device <> ''),
    model text not null,
    source text not null,
    engine text not null,
    arguments text[] not null,
    digest text,
    chosen boolean not null,
    tokens_per_second float8 check (tokens_per_second > 0),
    kv_tokens bigint,
    load_seconds float8,
    wake_seconds float8,
    memory_bytes bigint,
    trouble text,
    measured_at timestamptz not null default clock_timestamp(),
    primary key (key, device),
    check ((tokens_per_second is null) = (trouble is not null))
);
create index tunings_digest on tunings (digest) where digest is not null;
create index tunings_model on tunings (model);
-- The type of device that its engine computes on; empty without an engine, or if the worker does not say.
alter table workers add column device text not null default '';
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
