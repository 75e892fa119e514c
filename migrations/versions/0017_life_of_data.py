"""The life of data: how long a tenant's things are kept."""

from alembic import op

revision = "0017"
down_revision = "0016"

RETENTION = """
alter table tenants
    -- Days after the end; null: as the platform's settings say.
    add column batch_retention_days int check (batch_retention_days between 1 and 3650),
    add column file_retention_days int check (file_retention_days between 1 and 3650);
-- By tenant: what is old is asked for each of them, so that one with a short time is not looked for among all others.
drop index batches_ended;
create index batches_ended on batches (tenant, greatest(completed_at, cancelled_at, expired_at, failed_at))
    where state in ('completed', 'cancelled', 'expired', 'failed');
create index batches_of_input on batches (input_file) where input_file is not null;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(RETENTION)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
