"""Registry: versions of models, and aliases that say which versions a name stands for."""

from alembic import op

revision = "0024"
down_revision = "0023"
OLDEST = "0022"
"""Code of before knows a name's first version only, under the plain name: it goes on with that one beside this."""

TABLES = """
-- A version is dealt out under a name of its own, a row here. The first version of a name has the plain name, so that
-- what was planned before there were versions, and workers that know of none, are its own.
alter table models add column version_of text references models;

create function sum_of(int[]) returns int language sql immutable strict as
    'select coalesce(sum(one), 0)::int from unnest($1) as one';

-- What a version is never changes; its digest is found at its first start, unless a worker registered it.
create table model_versions (
    model text not null references models,
    number int not null check (number > 0),
    queue text not null unique references models,
    source text not null,
    engine text not null,
    arguments text[] not null default '{}',
    digest text,
    state text not null check (state in ('draft', 'ready', 'retired')),
    registered boolean not null,
    created_at timestamptz not null default now(),
    ready_at timestamptz,
    retired_at timestamptz,
    primary key (model, number),
    unique (model, digest),
    check ((state = 'retired') = (retired_at is not null))
);

-- Every change is a row; of a name's alias the latest counts. One without versions is an alias that is gone.
create table model_aliases (
    id bigint generated always as identity primary key,
    model text not null references models,
    alias text not null check (alias ~ '^[a-z][a-z0-9_-]{0,39}$' and alias !~ '^v[0-9]+$'),
    versions int[] not null,
    weights int[] not null,
    guard jsonb,
    actor text not null,
    reason text not null default '',
    created_at timestamptz not null default clock_timestamp(),
    check (cardinality(versions) = cardinality(weights)),
    check (cardinality(versions) between 0 and 10),
    check (0 < all(weights)),
    check (sum_of(weights) = case when versions = '{}' then 0 else 100 end)
);
create index model_aliases_latest on model_aliases (model, alias, id desc);

-- Calls by version, for the guard of an alias; kept for a week.
create table version_calls (
    queue text not null references models,
    minute timestamptz not null,
    calls int not null,
    errors int not null,
    slow int not null,
    primary key (queue, minute)
);

alter table slices add column asked text;
comment on column slices.asked is 'what its lines name, where that is not what their engine is called';
alter table batches add column versions jsonb;
alter table workers add column model_version int;
-- A version's price that is its name's, and follows it.
alter table prices add column inherited boolean not null default false;

alter table legal_moves drop constraint legal_moves_machine_check,
    add check (machine in ('batch', 'slice', 'version'));
insert into legal_moves values
    ('version', 'draft', 'ready'), ('version', 'draft', 'retired'), ('version', 'ready', 'retired');
create trigger model_versions_move before update of state on model_versions
    for each row when (old.state is distinct from new.state) execute function guard_moves('version');

create function guard_version() returns trigger language plpgsql as $$
begin
    raise exception 'version %% of %% never changes', old.number, old.model using errcode = 'check_violation';
end $$;
create trigger model_versions_same before update on model_versions
    for each row when ((old.model, old.number, old.queue, old.source, old.engine, old.arguments)
                       is distinct from (new.model, new.number, new.queue, new.source, new.engine, new.arguments)
                       or (old.digest is not null and old.digest is distinct from new.digest))
    execute function guard_version();
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
