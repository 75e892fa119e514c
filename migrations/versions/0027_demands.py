"""Demands: what an alias asks for before a version's share of it grows."""

from alembic import op

revision = "0027"
down_revision = "0026"
OLDEST = "0024"
"""An older API promotes without asking, and what it changes demands nothing: demand once all are of this release."""

TABLES = """
alter table model_aliases add column demand jsonb;
comment on column model_aliases.demand is 'tenant, eval, scorer, at_least: what a run must show of a version first';
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
