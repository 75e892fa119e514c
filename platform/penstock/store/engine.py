"""Connections: SQLAlchemy engines over psycopg 3, set up the same way in every process."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine


def _url(database_url: str) -> URL:
    return make_url(database_url).set(drivername="postgresql+psycopg")


def _options(connections: int) -> dict[str, Any]:
    return {
        "pool_size": connections,
        "max_overflow": 0,
        "pool_timeout": 10,
        "pool_pre_ping": True,
        # No prepared statements: a pooler in transaction mode may hand out another server connection.
        "connect_args": {"prepare_threshold": None, "connect_timeout": 5, "application_name": "penstock"},
    }


def sync_engine(database_url: str, connections: int) -> Engine:
    """An engine for processes with threads. At most `connections` are open."""
    return create_engine(_url(database_url), **_options(connections))


def async_engine(database_url: str, connections: int) -> AsyncEngine:
    """An engine for the API's event loop. At most `connections` are open."""
    return create_async_engine(_url(database_url), **_options(connections))
