"""Keys and audit: operators' keys."""

from alembic import op

revision = "0014"
down_revision = "0013"

TABLES = """
alter table api_keys drop constraint api_keys_role_check,
    add constraint api_keys_role_check check (role in ('operator', 'tenant', 'viewer'));
-- The key that every start makes valid is whoever runs the platform.
update api_keys set role = 'operator' where tenant = 'default' and name = 'bootstrap' and role = 'tenant';
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
