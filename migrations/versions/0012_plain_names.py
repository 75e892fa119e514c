"""Plain names: columns and a table are called what their modules are called since the rooms were redrawn."""

from alembic import op

revision = "0012"
down_revision = "0011"

NAMES = """
alter table workers rename column door to ingress_url;
alter table workers rename column pulsed_at to load_reported_at;
alter table workers rename column trouble to engine_trouble;
alter table shares rename to fair_turns;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(NAMES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
