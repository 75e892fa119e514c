"""Batches of rows: statistics that were taken while one large batch was all there is say nothing of the next ones."""

from alembic import op

revision = "0042"
down_revision = "0041"
OLDEST = "0024"
"""What Postgres expects of a column is nothing that a process reads."""

TABLE = """
-- One batch in a table is one value for ANALYZE; then Postgres expects that every batch has all rows, and reads the
-- whole table for each job that ends until the next ANALYZE. It is told that a batch has five rows: that leads to the
-- index, which is right for large ones, too.
alter table slices alter column batch set (n_distinct = -0.2);
alter table leases alter column batch set (n_distinct = -0.2);
alter table trail alter column batch set (n_distinct = -0.2);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLE)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
