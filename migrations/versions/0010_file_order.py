"""File order: a batch may say that its lines are asked in file order."""

from alembic import op

revision = "0010"
down_revision = "0009"

TABLES = """
alter table batches add column plan boolean not null default true;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
