"""Sessions of the console: who logged in with which key."""

from alembic import op

revision = "0035"
down_revision = "0034"

SESSIONS = """
-- A key's sessions end with it: a session may do what its key may at that moment.
create table sessions (
    hash bytea primary key check (length(hash) = 32),
    key text not null references api_keys on delete cascade,
    opened_at timestamptz not null default clock_timestamp(),
    seen_at timestamptz not null default clock_timestamp()
);
comment on column sessions.hash is 'SHA-256 of the random token in the cookie';
comment on column sessions.seen_at is 'to the minute; one that was not seen for long is over';
create index sessions_of_key on sessions (key, opened_at);
create index sessions_idle on sessions (seen_at);
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(SESSIONS)


def downgrade() -> None:
    raise NotImplementedError("migrations only go forward: restore a backup instead")
