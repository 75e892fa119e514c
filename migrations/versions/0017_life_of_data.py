"""The life of data: how long a tenant's things are kept, and its erasure."""

from alembic import op

revision = "0017"
down_revision = "0016"

RETENTION = """
alter table tenants
    -- Days after the end; null: as the platform's settings say.
    add column batch_retention_days int check (batch_retention_days between 1 and 3650),
    add column file_retention_days int check (file_retention_days between 1 and 3650),
    -- Since when nothing is taken of it any more: it is being erased.
    add column closed_at timestamptz;
-- By tenant: what is old is asked for each of them, so that one with a short time is not looked for among all others.
drop index batches_ended;
create index batches_ended on batches (tenant, greatest(completed_at, cancelled_at, expired_at, failed_at))
    where state in ('completed', 'cancelled', 'expired', 'failed');
create index batches_of_input on batches (input_file) where input_file is not null;
"""

ERASURE = """
create table erasures (
    id text primary key,
    tenant text unique references tenants, -- null: it is done, and nothing says whose it was
    actor text not null,
    request text,
    asked_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    -- What is gone by now: rows by kind, and bytes.
    gone jsonb not null default '{}',
    -- So far the trail was searched for moves of batches that were deleted before.
    trail_id bigint not null default 0,
    check ((tenant is null) = (ended_at is not null))
);
create index erasures_ended on erasures (ended_at) where ended_at is not null;

-- What a deletion looks for by: without them each deleted row reads a whole table.
create index leases_of_batch on leases (batch);
create index batches_of_root on batches (root) where root is not null;
create index events_of_tenant on events (tenant) where batch is null;
-- A slice's batch says the same of its tenant, a lease's batch of its slice: two checks less at each claim and plan.
alter table slices drop constraint slices_tenant_fkey;
alter table leases drop constraint leases_slice_fkey;
-- As usage_lines has it: no call that ends late is counted for a tenant that is gone.
alter table usage_calls add constraint usage_calls_tenant_fkey foreign key (tenant) references tenants;

-- Whose a move was, to be found when its batch is gone; null in rows of before.
alter table trail add column tenant text;
create or replace function note_batch_move() returns trigger language plpgsql as $$
begin
    insert into trail (batch, was, becomes, lease, tenant)
    values (new.id, old.state, new.state, coalesce(new.lease, old.lease), new.tenant);
    return null;
end $$;
create or replace function note_slice_move() returns trigger language plpgsql as $$
begin
    insert into trail (batch, slice, was, becomes, lease, tenant)
    values (new.batch, new.id, old.state, new.state, coalesce(new.lease, old.lease), new.tenant);
    return null;
end $$;
create or replace function guard_trail() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and old.at < clock_timestamp() - interval '1 day' then
        return old;
    end if;
    if tg_op = 'DELETE' and exists (
        select from tenants where closed_at is not null
          and id = coalesce(old.tenant, (select b.tenant from batches b where b.id = old.batch))) then
        return old;
    end if;
    raise exception 'the trail is append-only' using errcode = 'check_violation', constraint = 'append_only';
end $$;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(RETENTION)
    op.get_bind().exec_driver_sql(ERASURE)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
