"""Orders: an operator drains a worker or restarts its engine by words in its row, which it reads with its beat."""

from alembic import op

revision = "0022"
down_revision = "0021"
OLDEST = "0021"
"""Workers of before neither read orders nor become `drained`; all else goes on beside them."""

ORDERS = """
alter table workers
    add column version text not null default '',
    -- An operator wants it to take nothing new.
    add column drain boolean not null default false,
    -- Restarts of its engine by number: the last that was ordered, and the last that is done.
    add column restarts_asked int not null default 0,
    add column restarts_done int not null default 0,
    drop constraint workers_state_check,
    add check (state in ('starting', 'ready', 'drained', 'draining', 'gone')),
    add check (restarts_done <= restarts_asked and restarts_asked <= restarts_done + 1);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(ORDERS)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
