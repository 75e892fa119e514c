"""Server facts: what Postgres is asked about itself."""

from __future__ import annotations

from sqlalchemy import Connection, text

from penstock.domain.fleet.server_facts import ServerFacts

_FACTS = text("""
    -- What is kept for superusers and for roles that are named is not for us. Of other roles' connections only their
    -- number can be seen.
    select extract(epoch from clock_timestamp())::float8 as clock_seconds,
        current_setting('server_version') as version,
        current_setting('max_connections')::int
            - current_setting('superuser_reserved_connections')::int
            - coalesce(current_setting('reserved_connections', true), '0')::int as connections,
        (select count(*)::int from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid())
            as open_connections""")


def read(conn: Connection) -> ServerFacts:
    """Ask for them."""
    return ServerFacts(**conn.execute(_FACTS).one()._mapping)
