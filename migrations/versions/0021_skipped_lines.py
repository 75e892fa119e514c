"""Skipped lines are a slice that is done at once; lines that name no model have their batch's."""

from alembic import op

revision = "0021"
down_revision = "0020"

SKIPPED = """
alter table batches add column on_invalid text not null default 'fail' check (on_invalid in ('fail', 'skip'));

-- Asked by lines that name none; of a batch that was made without one, what its validation took.
alter table batches add column default_model text;

-- The slice of a batch's skipped lines has no part of the plan, and asks no model.
alter table slices drop constraint slices_plan_bytes_check;
alter table slices alter column model drop not null;
alter table slices add check (plan_bytes >= 0), add check ((plan_bytes > 0) = (model is not null));

-- It is claimed, recorded and settled in one transaction: `now()` would be before its lease was opened.
alter table segments alter column created_at set default clock_timestamp();
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(SKIPPED)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
