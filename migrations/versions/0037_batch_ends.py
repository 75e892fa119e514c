"""Batch ends: what metrics count of each batch and job that ended, until a keeper has added it up."""

from alembic import op

revision = "0037"
down_revision = "0035"
OLDEST = "0024"
"""What a worker of before ends is not counted."""

TABLE = """
-- Whoever ends batches only inserts here, and waits for nobody; a keeper moves the rows to `counts` every few seconds.
create table batch_ends (
    kind text not null,
    lane text not null,
    state text not null,
    late boolean not null,
    seconds float8 not null,
    validating_seconds float8,
    first_answer_seconds float8,
    finalizing_seconds float8,
    cost numeric not null
);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLE)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
