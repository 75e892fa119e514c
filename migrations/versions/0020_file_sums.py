"""File sums: how many files and bytes a tenant keeps, without counting its files at each upload."""

from alembic import op

revision = "0020"
down_revision = "0019"

FILE_SUMS = """
-- A ledger: what the statements that made or deleted files changed, to be summed. Rows are only added, so nobody waits
-- for anybody; whoever holds the tenant's lock makes one row of many (store/accounts/limits.py).
create table file_sums (
    id bigint generated always as identity primary key,
    tenant text not null references tenants on delete cascade,
    files bigint not null,
    bytes bigint not null
);
create index file_sums_of_tenant on file_sums (tenant) include (files, bytes);

create function sum_files() returns trigger language plpgsql as $$
begin
    insert into file_sums (tenant, files, bytes)
    select tenant, count(*) * sign, sum(bytes) * sign
    from changed, (select case tg_op when 'INSERT' then 1 else -1 end as sign) one
    group by tenant, sign;
    return null;
end $$;
create trigger files_added after insert on files
    referencing new table as changed for each statement execute function sum_files();
create trigger files_deleted after delete on files
    referencing old table as changed for each statement execute function sum_files();

insert into file_sums (tenant, files, bytes) select tenant, count(*), sum(bytes) from files group by tenant;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(FILE_SUMS)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
