"""Usage by key and lane: which API key made a batch or a run, and usage of swept lines and of calls apart by both."""

from alembic import op

revision = "0039"
down_revision = "0038"

COLUMNS = """
-- The id of the API key that asked for it; null: made before this was kept. A key may be gone: nothing refers to it.
alter table batches add column api_key text;
alter table eval_runs add column api_key text;

-- '' is no key (of before, or beyond the most that an hour tells apart), and no lane (of before).
alter table usage_lines
    add column lane text not null default '',
    add column api_key text not null default '',
    drop constraint usage_lines_pkey,
    add primary key (tenant, hour, model, lane, api_key);
alter table usage_calls
    add column api_key text not null default '',
    drop constraint usage_calls_pkey,
    add primary key (tenant, hour, model, api_key);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(COLUMNS)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
