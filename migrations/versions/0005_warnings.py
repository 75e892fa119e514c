"""Warnings: answers that are empty because max_tokens ran out, counted in the rows that count their lines."""

from alembic import op

revision = "0005"
down_revision = "0004"

TABLES = """
alter table segments
    add column empty_lines int[] not null default '{}';

-- empty_lines: the first few, by line number.
alter table slices
    add column empty int not null default 0 check (empty between 0 and completed),
    add column empty_lines int[] not null default '{}';
alter table batches
    add column empty int not null default 0 check (empty >= 0),
    add column empty_lines int[] not null default '{}';
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
