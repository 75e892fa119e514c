"""Ensembles: models that are made of several; and which member a slice's lines went to."""

from alembic import op

revision = "0030"
down_revision = "0029"
OLDEST = "0024"
"""A worker of before answers a member's lines as well, without the trace and the member's params."""

TABLES = """
-- Each row is one version, and never changes. A name that was removed goes on counting if it is added again.
create table ensembles (
    id bigint generated always as identity primary key,
    name text not null check (name <> '' and strpos(name, '@') = 0),
    version int not null check (version > 0),
    -- JSON as it was written: the order of its rules says something, and texts may hold what jsonb refuses.
    definition text not null,
    actor text not null,
    created_at timestamptz not null default clock_timestamp(),
    removed_at timestamptz,
    unique (name, version)
);

create function guard_ensemble() returns trigger language plpgsql as $$
begin
    raise exception 'version %% of the ensemble %% never changes', old.version, old.name
        using errcode = 'check_violation';
end $$;
create trigger ensembles_same before update on ensembles
    for each row when ((old.name, old.version, old.definition, old.created_at)
                       is distinct from (new.name, new.version, new.definition, new.created_at)
                       or old.removed_at is not null and old.removed_at is distinct from new.removed_at)
    execute function guard_ensemble();

-- A name is a model's or an ensemble's.
create function guard_ensemble_name() returns trigger language plpgsql as $$
begin
    if tg_table_name = 'models' and exists (select from ensembles where name = new.name and removed_at is null)
       or tg_table_name = 'ensembles' and exists (select from models where name = new.name) then
        raise exception 'the name %% is taken', new.name using errcode = 'unique_violation';
    end if;
    return new;
end $$;
create trigger models_name before insert on models for each row execute function guard_ensemble_name();
create trigger ensembles_name before insert on ensembles for each row execute function guard_ensemble_name();

alter table slices add column ensemble bigint references ensembles, add column member text,
    add check ((ensemble is null) = (member is null));
comment on column slices.ensemble is 'whose lines its lines are; `model` is the queue of the member that they went to';
comment on column slices.member is 'the member that its lines went to, as the ensemble names it';
create index slices_ensemble on slices (ensemble) where ensemble is not null;

-- Waiting calls by member; lines are counted in their slices.
create table ensemble_calls (
    ensemble bigint not null references ensembles,
    member text not null,
    calls bigint not null,
    failed bigint not null,
    primary key (ensemble, member)
);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
