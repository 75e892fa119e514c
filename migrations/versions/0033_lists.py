"""Lists: batches by state, lane, model and metadata, each the newest first, and acts by what they were done to."""

from alembic import op

revision = "0033"
down_revision = "0032"
OLDEST = "0024"

INDEXES = """
-- Each filter of a list finds its rows, the newest first, however many others there are.
create index batches_by_state on batches (tenant, kind, state, created_at desc, id desc) include (lane);
create index batches_by_lane on batches (tenant, kind, lane, created_at desc, id desc);
create index batches_by_model on batches (tenant, kind, model, created_at desc, id desc) where model is not null;
create index batches_by_metadata on batches using gin (metadata jsonb_path_ops) where metadata <> '{}';
-- For the timeline of one batch.
create index audit_of_target on audit (tenant, target, id) where target like 'batch%%' or target like 'job%%';
create index trail_batch_moves on trail (batch, id) where slice is null;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(INDEXES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
