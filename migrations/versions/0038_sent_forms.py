"""Sent forms: what the console answered to a form, so that the same form sent again does nothing more."""

from alembic import op

revision = "0038"
down_revision = "0037"
OLDEST = "0024"
"""A console of before takes a form that is sent twice for two."""

TABLE = """
-- They go with their session, and each form that a session sends takes its old ones away: no sweep is needed.
create table sent_forms (
    session bytea not null references sessions on delete cascade,
    form bytea not null check (length(form) = 32),
    sent_at timestamptz not null default clock_timestamp(),
    done boolean not null default false,
    answer bytea check (length(answer) <= 65536),
    primary key (session, form)
);
comment on column sent_forms.form is 'SHA-256 of the form: its random token, where it was sent, and what it held';
comment on column sent_forms.answer is 'encrypted with a key made of the token, which is in the page alone';
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(TABLE)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
