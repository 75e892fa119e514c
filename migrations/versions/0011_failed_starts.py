"""Failed starts: a worker's row says how often in a row its engine did not start, and why."""

from alembic import op

revision = "0011"
down_revision = "0010"

TABLES = """
alter table workers add column failed_starts integer not null default 0;
alter table workers add column trouble text;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
