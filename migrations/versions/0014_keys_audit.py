"""Keys and audit: operators' keys, keys for some models, when each was used last; and a table of who did what."""

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

-- Rows outlive what they are about, so nothing refers to anything. An actor is a key's id, `cli` or `platform`.
create table audit (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    tenant text not null,
    actor text not null,
    request text,
    action text not null,
    target text not null,
    details jsonb not null default '{}' check (pg_column_size(details) <= 4096)
);
create index audit_of_tenant on audit (tenant, id);
create index audit_of_action on audit (action, id);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
