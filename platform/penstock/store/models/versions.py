"""Versions: their rows. What one is never changes; its state goes forward, and its digest is found once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Row, text

from penstock.domain.models.registry import Numbered
from penstock.domain.models.version import Definition, Version, VersionState, queue_of

_COLUMNS: Final = """
    select model, number, queue, source, engine, arguments, base, digest, state, registered, created_at, ready_at,
           retired_at
    from model_versions"""
_LOCK_NAME = text("select name from models where name = :model and version_of is null for no key update")
_BY_DIGEST = text(f"{_COLUMNS} where model = :model and digest = :digest")
_UNSERVED = text(f"""{_COLUMNS}
    where model = :model and digest is null and state = 'draft'
      and source = :source and engine = :engine and arguments = cast(:arguments as text[])
      and base is not distinct from cast(:base as text)
    order by number limit 1""")
_FIND = text(f"{_COLUMNS} where model = :model and number = :number")
_OF_MODEL = text(f"{_COLUMNS} where model = :model order by number")
_PAGE = text(f"""{_COLUMNS}
    where (cast(:model as text) is null or model = :model)
      and (cast(:allowed as text[]) is null or model = any(cast(:allowed as text[])))
      and (cast(:after_model as text) is null or (model, number) > (:after_model, :after_number))
    order by model, number limit :limit""")
_TAKEN = text("""
    -- Where the numbers of a name stand, and names of models that look like versions of it.
    select coalesce(max(number), 0) as last, array(select name from models where starts_with(name, :model || '@'))
        as names
    from model_versions where model = :model""")
_ADD_QUEUE = text("""
    -- What its name taught, and promises, hold until the version has its own.
    insert into models (name, source, version_of, bytes_per_token, output_tokens, tokens_scale, measured_at)
    select :queue, 'registered', name, bytes_per_token, output_tokens, tokens_scale, measured_at
    from models where name = :model
    on conflict (name) do nothing""")
_INHERIT_PRICES = text("""
    insert into prices (model, valid_from, currency, input, cached_input, output, gpu, inherited)
    select :queue, valid_from, currency, input, cached_input, output, gpu, true from prices where model = :model
    on conflict (model, valid_from) do nothing""")
_INSERT = text("""
    insert into model_versions (model, number, queue, source, engine, arguments, base, digest, state, registered)
    values (:model, :number, :queue, :source, :engine, cast(:arguments as text[]), :base, :digest, 'draft',
            :registered)""")
_KEEP = text("""
    -- Whoever retires one locks its name first, and looks for what is pinned to it after that.
    select name from models where name = any(cast(:names as text[])) order by name for share""")
_RETIRED = text("""
    select model, number from model_versions
    where state = 'retired'
      and (model, number) in (select * from unnest(cast(:models as text[]), cast(:numbers as int[])))""")
_SERVED = text("""
    update model_versions set digest = :digest, state = 'ready', ready_at = coalesce(ready_at, clock_timestamp())
    where model = :model and number = :number and state in ('draft', 'ready')""")
_RETIRE = text("""
    update model_versions set state = 'retired', retired_at = clock_timestamp()
    where model = :model and number = :number and state <> 'retired'""")
_SERVE = text("update workers set model = :queue, model_version = :number where id = :worker")
_OPEN_BATCHES = text("""
    select distinct batch from slices
    where model = :served_as and state in ('waiting', 'queued', 'ready', 'running')
      and (cast(:adapter as text) is null or adapter = :adapter) order by batch limit :limit""")
_WORKERS = text("""
    select model as queue, count(*)::int as workers from workers
    where kind = 'gpu' and state = 'ready' and seen_at > clock_timestamp() - :gone
      and model = any(cast(:queues as text[])) and host is distinct from cast(:but as text) group by model""")
_EVERY = text(
    "select model, number, queue, state, base, case when base is not null then digest end as digest from model_versions"
)
_OF_QUEUE = text(f"{_COLUMNS} where queue = :queue")
_OF_QUEUES = text(f"{_COLUMNS} where queue = any(cast(:queues as text[]))")
_HANGING = text(f"{_COLUMNS} where base = :queue and state <> 'retired' order by model, number limit :limit")
_ADOPT = text("""
    -- What waited for a name of which nobody knew yet that it is an adapter's goes to its base.
    update slices set model = :base, adapter = :queue, asked = coalesce(asked, :queue),
                      state = case when state = 'ready' then 'queued' else state end
    where model = :queue and state in ('waiting', 'queued', 'ready') and adapter is null""")


def lock_name(conn: Connection, model: str) -> bool:
    """Let nobody else change this model's versions and aliases meanwhile; False if there is no such model."""
    return conn.execute(_LOCK_NAME, {"model": model}).first() is not None


def keep(conn: Connection, pinned: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Let none of these versions be retired before this transaction ends; those that are retired by now."""
    conn.execute(_KEEP, {"names": sorted({model for model, _ in pinned})})
    values = {"models": [model for model, _ in pinned], "numbers": [number for _, number in pinned]}
    return [(row.model, row.number) for row in conn.execute(_RETIRED, values)]


def by_digest(conn: Connection, model: str, digest: str) -> Version | None:
    """The version whose engine has this digest."""
    return _one(conn.execute(_BY_DIGEST, {"model": model, "digest": digest}).first())


def unserved(conn: Connection, model: str, definition: Definition) -> Version | None:
    """A version that an operator added as this, and that no worker has served yet."""
    return _one(conn.execute(_UNSERVED, {"model": model, **_defined(definition)}).first())


def find(conn: Connection, model: str, number: int) -> Version | None:
    """One version."""
    return _one(conn.execute(_FIND, {"model": model, "number": number}).first())


def of_model(conn: Connection, model: str) -> list[Version]:
    """A model's versions by number."""
    return [_version(row) for row in conn.execute(_OF_MODEL, {"model": model})]


def page(
    conn: Connection,
    model: str | None,
    *,
    allowed: frozenset[str] | None = None,
    after: tuple[str, int] | None,
    limit: int,
) -> list[Version]:
    """Versions (of one model, of those `allowed`) by model and number, after the one named."""
    after_model, after_number = after or (None, None)
    values: dict[str, Any] = {"model": model, "allowed": None if allowed is None else sorted(allowed)}
    values |= {"after_model": after_model, "after_number": after_number, "limit": limit}
    return [_version(row) for row in conn.execute(_PAGE, values)]


def insert(
    conn: Connection, model: str, definition: Definition, *, digest: str | None = None, registered: bool
) -> Version:
    """Add a draft under the model's next number; its name must be locked."""
    taken = conn.execute(_TAKEN, {"model": model}).one()
    number = taken.last + 1
    while number > 1 and queue_of(model, number) in taken.names:
        number += 1
    queue = queue_of(model, number)
    if queue != model:
        conn.execute(_ADD_QUEUE, {"model": model, "queue": queue})
        conn.execute(_INHERIT_PRICES, {"model": model, "queue": queue})
    values = {"model": model, "number": number, "queue": queue, "digest": digest, "registered": registered}
    conn.execute(_INSERT, values | _defined(definition))
    made = find(conn, model, number)
    assert made is not None, "it was just inserted"
    return made


def served(conn: Connection, version: Version, digest: str) -> None:
    """Note that a worker serves a version, and what its engine's digest is."""
    conn.execute(_SERVED, {"model": version.model, "number": version.number, "digest": digest})


def retire(conn: Connection, version: Version) -> bool:
    """Retire a version; False if it was already."""
    return conn.execute(_RETIRE, {"model": version.model, "number": version.number}).rowcount == 1


def serve(conn: Connection, worker: UUID, version: Version) -> None:
    """Say in a worker's row that it serves this version: it is fed and routed to from its queue."""
    conn.execute(_SERVE, {"worker": worker, "queue": version.queue, "number": version.number})


def open_batches(conn: Connection, version: Version, *, limit: int) -> list[str]:
    """Batches and jobs of any tenant that have open work pinned to a version."""
    adapter = version.queue if version.definition.base else None
    values = {"served_as": version.served_as, "adapter": adapter, "limit": limit}
    return [row.batch for row in conn.execute(_OPEN_BATCHES, values)]


def of_queue(conn: Connection, queue: str) -> Version | None:
    """The version whose own name among queues this is."""
    return _one(conn.execute(_OF_QUEUE, {"queue": queue}).first())


def of_queues(conn: Connection, queues: Sequence[str]) -> dict[str, Version]:
    """The versions whose own names among queues these are, by that name."""
    return {row.queue: _version(row) for row in conn.execute(_OF_QUEUES, {"queues": list(queues)})}


def hanging(conn: Connection, base: Version, *, limit: int) -> list[Version]:
    """Adapters on this base that may be asked."""
    return [_version(row) for row in conn.execute(_HANGING, {"queue": base.queue, "limit": limit})]


def adopt(conn: Connection, adapter: Version) -> int:
    """Let slices that wait under an adapter's name wait for its base's workers; how many there were."""
    values = {"base": adapter.definition.base, "queue": adapter.queue}
    return conn.execute(_ADOPT, values).rowcount


def live_workers(conn: Connection, queues: Sequence[str], *, gone: timedelta, but: str | None = None) -> dict[str, int]:
    """How many ready workers serve each of these queues, but for those of one host; only those that are served."""
    rows = conn.execute(_WORKERS, {"queues": list(queues), "gone": gone, "but": but})
    return {row.queue: row.workers for row in rows}


def every(conn: Connection) -> list[tuple[str, int, Numbered]]:
    """Model and number of all versions, and what must be known to send work to them."""
    return [
        (row.model, row.number, Numbered(row.queue, VersionState(row.state), row.base, row.digest))
        for row in conn.execute(_EVERY)
    ]


def _defined(definition: Definition) -> dict[str, Any]:
    told = {"source": definition.source, "engine": definition.engine, "base": definition.base}
    return told | {"arguments": list(definition.arguments)}


def _one(row: Row[Any] | None) -> Version | None:
    return _version(row) if row else None


def _version(row: Row[Any]) -> Version:
    values = dict(row._mapping)
    definition = Definition(
        values.pop("source"), values.pop("engine"), tuple(values.pop("arguments")), values.pop("base")
    )
    return Version(**{**values, "state": VersionState(row.state)}, definition=definition)
