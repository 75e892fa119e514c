"""Folds: a slice of an ensemble that gathers has one slice for each member, and one that makes an answer of theirs."""

from alembic import op

revision = "0031"
down_revision = "0030"
OLDEST = "0024"
"""Older workers know nothing of lines that are picked for a later member: an ensemble that gathers is added once all
are of this release."""

FOLDS = """
alter table slices
    add column fold bigint references slices on delete cascade,
    add column place smallint,
    add column picked int[],
    add column released_at timestamptz,
    add column plan_key text,
    add column due boolean not null default false,
    add column agreement double precision not null default 0,
    add column agreed int not null default 0;
comment on column slices.fold is 'of a member''s slice: the one that makes one answer of its and the others''';
comment on column slices.place is 'the member''s place in its ensemble, from 0';
comment on column slices.picked is 'of a later member: those lines of its range that it is asked';
comment on column slices.released_at is 'of a later member: since when it is asked';
comment on column slices.plan_key is 'of a judge: where its questions are; others read the plan of their batch';
comment on column slices.agreement is 'of a vote: the sum of the agreements of as many lines as `agreed` says';
create index slices_fold on slices (fold) where fold is not null;
comment on column slices.due is 'of a fold: no member of it is at work, since the transaction that ended the last one';
create index slices_due on slices (batch, id) where due and state = 'waiting';
create index slices_gathering on slices (batch) where state = 'waiting' and model is null;

-- The slice of a fold asks no model, and reads the plan all the same; it has no member.
do $$ declare name text; begin
    for name in select conname from pg_constraint where conrelid = 'slices'::regclass and contype = 'c'
        and (pg_get_constraintdef(oid) like '%%plan_bytes > 0%%'
             or pg_get_constraintdef(oid) like '%%ensemble IS NULL%%') loop
        execute format('alter table slices drop constraint %%I', name);
    end loop;
end $$;
alter table slices
    add check (plan_bytes > 0 or model is null),
    add check (ensemble is not null or member is null),
    add check (member is null or model is not null),
    add check (fold is null or member is not null and place is not null),
    add check (picked is null or released_at is not null and fold is not null),
    add check (plan_key is null or picked is not null);

-- What each member said, in a file of its own, if the create asked for it.
alter table batches add column trace boolean not null default false, add column trace_file text;

insert into legal_moves values
    ('slice', 'waiting', 'queued'), ('slice', 'waiting', 'running'), ('slice', 'waiting', 'dropped'),
    ('slice', 'running', 'waiting');
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(FOLDS)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
