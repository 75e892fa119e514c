"""Models: names that the platform knows, because they were added or a worker registered them once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

_ADD = text("insert into models (name, source) values (:name, :source) on conflict (name) do nothing returning name")
_KNOWN = text("select name from models where name = any(cast(:names as text[]))")
_NAMES = text("select name from models order by name limit :limit")
_MOST_NAMES = 10_000
_LIST = text("""
    select m.name, m.source, m.created_at,
           (select count(*)::int from workers w where w.kind = 'gpu' and w.model = m.name and w.state = 'ready'
            and w.seen_at > clock_timestamp() - :gone) as workers
    from models m order by m.name""")


@dataclass(frozen=True)
class Model:
    """A known model, and how many live workers serve it now."""

    name: str
    source: str
    created_at: datetime
    workers: int


def add(conn: Connection, name: str, source: str) -> bool:
    """Make a model known; False if it was already."""
    return conn.execute(_ADD, {"name": name, "source": source}).first() is not None


def known(conn: Connection, names: list[str]) -> set[str]:
    """Those of the names that are known models."""
    return {row.name for row in conn.execute(_KNOWN, {"names": names})}


def names(conn: Connection) -> list[str]:
    """Every known name."""
    return [row.name for row in conn.execute(_NAMES, {"limit": _MOST_NAMES})]


def page(conn: Connection, *, gone: timedelta) -> list[Model]:
    """All known models by name."""
    return [Model(**row._mapping) for row in conn.execute(_LIST, {"gone": gone})]
