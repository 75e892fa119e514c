"""Line index: which lines failed how is counted as they are recorded, and files have an index of their lines."""

from alembic import op

revision = "0032"
down_revision = "0031"
OLDEST = "0024"
"""Older processes count no errors and write no index: what they end is read in its files alone."""

TABLES = """
create table slice_errors (
    slice bigint not null references slices on delete cascade,
    status int not null,
    code text not null,
    lines int not null check (lines > 0),
    first_line int not null,
    message text not null,
    primary key (slice, status, code)
);
comment on table slice_errors is 'while its batch runs: so many lines of a slice failed with this status and code';
comment on column slice_errors.status is 'the engine''s; 0 if it said nothing';
comment on column slice_errors.message is 'of the first of them';

alter table batches add column line_errors jsonb;
comment on column batches.line_errors is 'of an ended batch with files: the same of all its lines';

alter table files add column index_key text;
comment on column files.index_key is 'a blob that says where its lines are; it goes when the file goes';

create function doom_index() returns trigger language plpgsql as $$
begin
    insert into intents (blob_key, doomed_at) values (old.index_key, clock_timestamp())
    on conflict (blob_key) do update set doomed_at = coalesce(intents.doomed_at, excluded.doomed_at);
    return null;
end $$;
create trigger files_index after delete on files
    for each row when (old.index_key is not null) execute function doom_index();
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
