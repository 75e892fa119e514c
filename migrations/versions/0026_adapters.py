"""Adapters: a version that hangs on another one, its base, whose queue its work waits in."""

from alembic import op

revision = "0026"
down_revision = "0025"
OLDEST = "0024"
"""A worker of before asks its engine for what an adapter's lines name, and is told that there is no such model."""

TABLES = """
alter table model_versions add column base text references model_versions (queue);
comment on column model_versions.base is 'the queue of the version that this adapter hangs on; null: it is none';
alter table model_versions add check (base <> queue);
create index model_versions_base on model_versions (base) where base is not null;

alter table slices add column adapter text;
comment on column slices.adapter is 'the adapter that its lines ask: its version''s own queue';

drop trigger model_versions_same on model_versions;
create trigger model_versions_same before update on model_versions
    for each row when ((old.model, old.number, old.queue, old.source, old.engine, old.arguments)
                       is distinct from (new.model, new.number, new.queue, new.source, new.engine, new.arguments)
                       or old.base is distinct from new.base
                       or (old.digest is not null and old.digest is distinct from new.digest))
    execute function guard_version();
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
