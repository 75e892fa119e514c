"""Saved: what the prefix cache, equal lines and the shared cache spared a batch, in tokens and in money."""

from alembic import op

revision = "0040"
down_revision = "0039"

COLUMNS = """
-- Of cached_tokens and reused_output_tokens: those of equal lines and of the shared cache; the rest is the prefix
-- cache's, which has no output. *_saved: picounits that they would have cost more, by the price of their segment.
alter table slices
    add column equal_input_tokens bigint not null default 0,
    add column shared_input_tokens bigint not null default 0,
    add column shared_output_tokens bigint not null default 0,
    add column prefix_saved numeric(38, 0) not null default 0,
    add column equal_saved numeric(38, 0) not null default 0,
    add column shared_saved numeric(38, 0) not null default 0;

-- Null: it ended before this was kept.
alter table batches
    add column equal_input_tokens bigint,
    add column shared_input_tokens bigint,
    add column shared_output_tokens bigint,
    add column prefix_saved numeric(38, 0),
    add column equal_saved numeric(38, 0),
    add column shared_saved numeric(38, 0);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(COLUMNS)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
