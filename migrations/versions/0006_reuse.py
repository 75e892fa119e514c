"""Reuse: batches may share one answer among equal lines and keep answers for later; what was reused is counted."""

from alembic import op

revision = "0006"
down_revision = "0005"

TABLES = """
-- cache: what its creator chose; null is what its tenant has chosen. cache_ttl_seconds: how long its answers are kept.
alter table batches
    add column dedup boolean not null default true,
    add column cache text check (cache in ('on', 'off', 'refresh')),
    add column cache_ttl_seconds int check (cache_ttl_seconds > 0),
    add column reused_output_tokens bigint not null default 0;
alter table slices add column reused_output_tokens bigint not null default 0;
alter table segments add column reused_output_tokens bigint not null default 0;

alter table tenants add column cache boolean not null default false;

-- What makes an engine's answers its own: model, version, arguments. Empty: not known, and nothing is shared.
alter table workers add column revision text not null default '';
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
