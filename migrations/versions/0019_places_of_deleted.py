"""Places of what was deleted: lists go on after a file, batch, job, endpoint or delivery that is gone since."""

from alembic import op

revision = "0019"
down_revision = "0018"

LISTED = ("files", "batches", "webhook_endpoints", "deliveries")

GONE = """
create table gone (
    id text primary key,
    tenant text not null,
    created_at timestamptz not null,
    gone_at timestamptz not null default clock_timestamp());
comment on table gone is 'where deleted objects stood in their lists; kept for a day';
create index gone_old on gone (gone_at);

create function keep_place() returns trigger language plpgsql as $$
begin
    insert into gone (id, tenant, created_at) select id, tenant, created_at from deleted
    on conflict (id) do nothing;
    return null;
end $$;
"""
TRIGGER = """
create trigger keep_place after delete on {table}
    referencing old table as deleted for each statement execute function keep_place();
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(GONE + "".join(TRIGGER.format(table=table) for table in LISTED))


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
