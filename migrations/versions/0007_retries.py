"""Retries: a batch that repeats lines of an ended one, its parent, and whose results are merged with those."""

from alembic import op

revision = "0007"
down_revision = "0006"

TABLES = """
-- root: where the chain of parents begins; merged files are in the order of its input. repeats: which lines, and what
-- is changed in them. reads: files that are not deleted before this batch has ended.
alter table batches
    add column parent text references batches,
    add column root text references batches,
    add column repeats jsonb,
    add column reads text[] not null default '{}',
    add column merged_output_file text,
    add column merged_error_file text,
    drop constraint batches_check1,
    add check (inline or input_key is not null or parent is not null),
    add check ((parent is null) = (root is null) and (parent is null) = (repeats is null));
create index batches_children on batches (parent, created_at, id) where parent is not null;
create index batches_reading on batches (tenant)
    where reads <> '{}' and state in ('validating', 'in_progress', 'paused', 'cancelling', 'finalizing');
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
