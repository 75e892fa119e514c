"""Resumable uploads, creates whose answer nobody heard, and files of other purposes than batches.

The parts of an upload are blobs until one file is made of them.
"""

from alembic import op

revision = "0018"
down_revision = "0017"

PURPOSES = """
alter table files drop constraint files_purpose_check;
alter table files add constraint files_purpose_check check (
    purpose in ('batch', 'batch_output', 'assistants', 'fine-tune', 'vision', 'user_data', 'evals'));
"""

UPLOADS = """
create table uploads (
    id text primary key,
    tenant text not null references tenants,
    purpose text not null,
    filename text not null,
    bytes bigint not null check (bytes >= 0),
    mime_type text not null,
    -- How long the file may live; null: until it is deleted.
    ttl interval,
    state text not null default 'pending' check (state in ('pending', 'completed', 'cancelled', 'expired')),
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    -- The file it became, which may be deleted since, and a hash of the ids of its parts, in their order.
    file text check ((file is not null) = (state = 'completed')),
    parts_hash bytea check ((parts_hash is not null) = (state = 'completed')),
    idempotency_key text,
    fingerprint bytea
);
create unique index uploads_idempotent on uploads (tenant, idempotency_key) where idempotency_key is not null;
create index uploads_pending on uploads (tenant) where state = 'pending';
create index uploads_old on uploads (expires_at);

create table upload_parts (
    id text primary key,
    tenant text not null references tenants,
    upload text not null references uploads,
    bytes bigint not null check (bytes >= 0),
    blob_key text not null unique,
    created_at timestamptz not null default now()
);
create index upload_parts_of on upload_parts (upload);
create index upload_parts_of_tenant on upload_parts (tenant);

create function upload_moves() returns trigger language plpgsql as $$
begin
    if old.state <> 'pending' and new is distinct from old then
        raise exception using errcode = 'check_violation', message = 'upload ' || old.id || ' is ' || old.state;
    end if;
    return new;
end $$;
create trigger upload_moves before update on uploads for each row execute function upload_moves();
"""

CREATES = """
-- What an SDK made without an Idempotency-Key, until its answer was fully sent; forgotten after ten minutes.
create table unheard_creates (
    made text primary key,
    tenant text not null references tenants,
    api_key text not null,
    fingerprint bytea not null check (octet_length(fingerprint) = 32),
    -- Of the last create or retry that it is the answer to.
    asked_at timestamptz not null default clock_timestamp(),
    -- It is known that the client had left before the answer.
    is_cut boolean not null default false
);
create index unheard_creates_same on unheard_creates (tenant, api_key, fingerprint);
create index unheard_creates_old on unheard_creates (asked_at);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(PURPOSES)
    op.get_bind().exec_driver_sql(UPLOADS)
    op.get_bind().exec_driver_sql(CREATES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
