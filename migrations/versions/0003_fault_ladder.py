"""The fault ladder: suspects of engine deaths, the trail of state moves, doomed blobs, and counts of rare events."""

from alembic import op

revision = "0003"
down_revision = "0002"

TABLES = """
-- Lines that were in flight when an engine died. `deaths` says what is known of each, and how it is asked next:
-- 1 in flight with many (asked with at most seven others), 2 with at most seven others (asked alone), 3 alone once
-- (asked alone), 4 alone twice: it ends as engine_crash. `trial` is the lease under which it is being asked now:
-- noted before it is sent, so that a worker which dies together with its engine is evidence too.
create table suspects (
    slice bigint not null references slices,
    line int not null,
    deaths smallint not null check (deaths between 0 and 4),
    trial bigint references leases,
    primary key (slice, line)
);

-- Every move of a batch and of a slice, in the order in which it happened; written by triggers, never changed.
create table trail (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    batch text not null,
    slice bigint,
    was text,
    becomes text not null,
    lease bigint
);
create index trail_batch on trail (batch, id);

create function note_batch_move() returns trigger language plpgsql as $$
begin
    insert into trail (batch, was, becomes, lease)
    values (new.id, old.state, new.state, coalesce(new.lease, old.lease));
    return null;
end $$;
create function note_slice_move() returns trigger language plpgsql as $$
begin
    insert into trail (batch, slice, was, becomes, lease)
    values (new.batch, new.id, old.state, new.state, coalesce(new.lease, old.lease));
    return null;
end $$;
create trigger batches_born after insert on batches for each row execute function note_batch_move();
create trigger batches_moved after update of state on batches
    for each row when (old.state is distinct from new.state) execute function note_batch_move();
create trigger slices_born after insert on slices for each row execute function note_slice_move();
create trigger slices_moved after update of state on slices
    for each row when (old.state is distinct from new.state) execute function note_slice_move();

create function guard_trail() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and old.at < clock_timestamp() - interval '1 day' then
        return old;
    end if;
    raise exception 'the trail is append-only' using errcode = 'check_violation', constraint = 'append_only';
end $$;
create trigger trail_kept before update or delete on trail for each row execute function guard_trail();

-- A blob that must go: nobody may publish it any more, and it is deleted from this time on. Without a time it is
-- being written.
alter table intents add column doomed_at timestamptz;
create index intents_doomed on intents (doomed_at) where doomed_at is not null;
create index intents_old on intents (created_at) where doomed_at is null;

-- Batches that have ended and whose pieces (plan copy, segments, suspects) are still there: an ended batch never
-- changes, so what is left of it stands here. Written by a trigger, so no way to end one can forget it.
create table leftovers (
    batch text primary key references batches,
    since timestamptz not null
);
create index leftovers_old on leftovers (since);
create function note_leftovers() returns trigger language plpgsql as $$
begin
    -- A batch whose assembly was given up has its answers there only: somebody may still want to look.
    insert into leftovers (batch, since)
    values (new.id, clock_timestamp()
        + case when new.completed > 0 and new.output_file is null and not new.inline then interval '30 days'
               else interval '0' end);
    return null;
end $$;
create trigger batches_left after update of state on batches
    for each row when (new.state in ('completed', 'cancelled', 'expired', 'failed')) execute function note_leftovers();
insert into leftovers (batch, since)
select id, coalesce(completed_at, failed_at, expired_at, cancelled_at, created_at) from batches
where state in ('completed', 'cancelled', 'expired', 'failed');

-- What the sweep looks for, oldest first. A closed lease goes a day after its batch has ended; the segments of an
-- inline job stay, for they are its results, and keep only the number of the lease under which they were accepted.
alter table segments drop constraint segments_lease_fkey;
create index leases_closed on leases (closed_at) where closed_at is not null;
create index suspects_trial on suspects (trial) where trial is not null;
create index files_expiring on files (expires_at) where expires_at is not null;
create index events_old on events (created_at);

-- How often rare things happened on the whole platform since it was set up. For metrics.
create table counts (
    name text primary key,
    value bigint not null
);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
