"""First expectations: when an open batch was first expected to have its answers, and when that was said."""

from alembic import op

revision = "0041"
down_revision = "0040"
OLDEST = "0024"
"""Of what a worker of before ends, no error of an expectation is counted."""

TABLE = """
-- Keepers write it once for each batch; it goes with the batch's end, and when somebody steers the batch: what was said
-- before is not true any more then.
create table first_expectations (
    batch text primary key references batches on delete cascade,
    said_at timestamptz not null default clock_timestamp(),
    expected_at timestamptz not null
);
alter table batch_ends add expected_seconds float8, add taken_seconds float8;
comment on column batch_ends.expected_seconds is 'from when its end was first expected until then';
comment on column batch_ends.taken_seconds is 'from when its end was first expected until its answers were there';
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLE)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
