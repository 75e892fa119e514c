"""Engine profiles: a worker says which kind of engine it has, and what that engine lacks."""

from alembic import op

revision = "0023"
down_revision = "0022"
OLDEST = "0021"
"""Workers of before say neither: nothing is known of their engines then, and all goes on."""

PROFILES = """
alter table workers
    -- The profile's name (domain/engines/profiles.py); empty without an engine, or if the worker does not say.
    add column engine text not null default '',
    -- What this start of it can't do (domain/engines/profile.py, EngineLack).
    add column lacks text[] not null default '{}';
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(PROFILES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
