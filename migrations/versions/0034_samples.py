"""Samples, incidents and what a worker says of its engine: what operators look at."""

from alembic import op

revision = "0034"
down_revision = "0033"
OLDEST = "0024"

TABLES = """
-- What a gpu worker said last of its engine: see penstock.domain.engines.engine_report. Null: its code does not say.
alter table workers add column engine_report jsonb;

-- One row for each tick, model and lane; '' is all of them, and the row of all and all is there for every tick: whoever
-- inserts it writes the others. `at` is the end of the tick's span.
create table samples (
    step smallint not null check (step in (10, 60)),
    model text not null,
    lane text not null,
    at timestamptz not null,
    backlog_tokens float8 not null default 0,
    backlog_lines float8 not null default 0,
    lines_per_second real not null default 0,
    input_tokens_per_second real not null default 0,
    output_tokens_per_second real not null default 0,
    calls real not null default 0,
    ttft_p50_ms real,
    ttft_p95_ms real,
    workers real not null default 0,
    slots real not null default 0,
    slots_used real not null default 0,
    primary key (step, model, lane, at)
);
create index samples_old on samples (step, at);

-- Rare things that went wrong, with their times; how many there were in all is in `counts`.
create table incidents (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    name text not null,
    times int not null check (times > 0),
    about text not null default ''
);
create index incidents_newest on incidents (name, id desc);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
