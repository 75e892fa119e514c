"""Keys and audit: operators' keys, keys for some models only, when each was used last, and what replaced it."""

from alembic import op

revision = "0014"
down_revision = "0013"

TABLES = """
alter table api_keys drop constraint api_keys_role_check,
    add constraint api_keys_role_check check (role in ('operator', 'tenant', 'viewer'));
-- The key that every start makes valid is whoever runs the platform.
update api_keys set role = 'operator' where tenant = 'default' and name = 'bootstrap' and role = 'tenant';
-- models: what a key may ask, and what lines of a batch that it made may name; null: every model.
alter table api_keys
    add column models text[] check (cardinality(models) between 1 and 100),
    add column last_used_at timestamptz,
    add column replaced_by text;
create index api_keys_oldest on api_keys (created_at, id);
alter table batches add column allowed_models text[];
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
