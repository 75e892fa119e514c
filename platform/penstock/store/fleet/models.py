"""Models: names that the platform knows, because they were added or a worker registered them once."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection, text

from penstock.domain.api_errors import Conflict
from penstock.domain.calls.ingress import Slo
from penstock.domain.fleet.model import Model, ModelFacts

_ADD = text("""
    insert into models (name, source) select :name, :source
    where not exists (select from ensembles where name = :name and removed_at is null)
    on conflict (name) do nothing returning name""")
_IS_ENSEMBLE = text("select exists (select from ensembles where name = :name and removed_at is null)")
_KNOWN = text("select name from models where name = any(cast(:names as text[]))")
_AMONG = text("select name from models where name = any(cast(:names as text[])) and version_of is null")
_EVERY_NAME = text("select name from models where version_of is null")
_NAMES = text("select name from models where version_of is null order by name limit :limit")
_FIRST_NAMES = text("""
    -- For people: some names, of those that a key may ask.
    select name from models
    where version_of is null and (cast(:allowed as text[]) is null or name = any(cast(:allowed as text[])))
    order by name limit :limit""")
_MOST_NAMES = 10_000
_MOST_MEASURED = 100
_LIVE_OF_IT = """(coalesce(q.version_of, q.name) = m.name
                  or exists (select from model_versions a where a.model = m.name and a.base = w.model))
             and w.kind = 'gpu' and w.state = 'ready' and w.seen_at > clock_timestamp() - :gone"""
_LIST = text(f"""
    select m.name, m.source, m.created_at, m.ttft_p95_ms, m.itl_p95_ms,
           (select count(*)::int from workers w join models q on q.name = w.model where {_LIVE_OF_IT}) as workers,
           array(select distinct w.engine from workers w join models q on q.name = w.model
                 where {_LIVE_OF_IT} and w.engine <> '' order by 1) as engines,
           array(select distinct lack from workers w join models q on q.name = w.model, unnest(w.lacks) lack
                 where {_LIVE_OF_IT} order by 1) as lacks
    from models m where m.version_of is null order by m.name""")
_PROMISE = text("""
    update models set
        ttft_p95_ms = case when cast(:ttft as int) is null then ttft_p95_ms else nullif(cast(:ttft as int), 0) end,
        itl_p95_ms = case when cast(:itl as int) is null then itl_p95_ms else nullif(cast(:itl as int), 0) end
    where name = :name
    returning ttft_p95_ms, itl_p95_ms""")
_PROMISED = text("""
    -- A version that promises nothing of its own keeps what its name promises.
    select m.name, coalesce(m.ttft_p95_ms, named.ttft_p95_ms) as ttft_p95_ms
    from models m left join models named on named.name = m.version_of
    where coalesce(m.ttft_p95_ms, named.ttft_p95_ms) is not null""")
_FACTS = text("""
    select name, bytes_per_token, output_tokens, tokens_scale from models
    where measured_at is not null and (cast(:names as text[]) is null or name = any(cast(:names as text[])))
    order by name limit :limit""")

_MEASURE = text("""
    -- What settled slices teach about their model's lines: the latest few of each model of which some settled since the
    -- last look. Only answered lines count, since the others cost no tokens; their part of a slice's bytes and of its
    -- estimate is by number. Not what a classifier was asked, of a route's first wave: it is longer than the lines.
    -- Two keepers that look at once pass over each other's models.
    with due as (
        select m.name from models m
        where (m.measured_at is null or m.measured_at < clock_timestamp() - :every)
          and (select max(s.done_at) from slices s where s.model = m.name and s.state = 'done')
              > greatest(m.measured_at, now() - :within)
        order by m.name limit :limit
        for no key update skip locked),
    taught as (
        select due.name, count(s.*)::int as slices,
            sum(s.plan_bytes::float8 * s.completed / s.lines) / nullif(sum(s.input_tokens), 0) as bytes_per_token,
            sum(s.output_tokens)::float8 / nullif(sum(s.completed), 0) as output_tokens,
            sum(s.input_tokens + s.output_tokens)
                / nullif(sum(s.tokens::float8 * s.completed / s.lines), 0) as tokens_scale
        from due left join lateral (
            select * from slices
            where model = due.name and state = 'done' and done_at > now() - :within
              and completed > 0 and input_tokens > 0 and picked is null
              and (fold is null or not exists (
                  select from ensembles e
                  where e.id = slices.ensemble and cast(e.definition as json) ->> 'kind' = 'route'))
            order by done_at desc limit :most) s on true
        group by due.name)
    update models m set measured_at = clock_timestamp(),
        bytes_per_token = coalesce(t.bytes_per_token, m.bytes_per_token),
        output_tokens = coalesce(t.output_tokens, m.output_tokens),
        tokens_scale = coalesce(t.tokens_scale, m.tokens_scale)
    from taught t where m.name = t.name
    returning m.name""")


def add(conn: Connection, name: str, source: str) -> bool:
    """Make a model known; False if it was already. Raises Conflict (`name_taken`) for an ensemble's name."""
    if conn.execute(_ADD, {"name": name, "source": source}).first() is not None:
        return True
    if conn.execute(_IS_ENSEMBLE, {"name": name}).scalar():
        message = f"{name!r} is an ensemble's name: give the model another one."
        raise Conflict("an ensemble", "a model", message, code="name_taken")
    return False


def known(conn: Connection, names: list[str]) -> set[str]:
    """Those of the names that are known models, or queues of versions."""
    return {row.name for row in conn.execute(_KNOWN, {"names": names})}


def names_among(conn: Connection, names: list[str]) -> frozenset[str]:
    """Those of the names that are models, not queues of versions."""
    return frozenset(row.name for row in conn.execute(_AMONG, {"names": names}))


def every_name(conn: Connection) -> frozenset[str]:
    """The names of all known models, however many."""
    return frozenset(row.name for row in conn.execute(_EVERY_NAME))


def names(conn: Connection) -> list[str]:
    """Known names by the alphabet, 10,000 at most."""
    return [row.name for row in conn.execute(_NAMES, {"limit": _MOST_NAMES})]


def first_names(conn: Connection, allowed: frozenset[str] | None, limit: int) -> list[str]:
    """The first known names by the alphabet, of those that a key may ask (None: of all)."""
    values = {"allowed": None if allowed is None else sorted(allowed), "limit": limit}
    return [row.name for row in conn.execute(_FIRST_NAMES, values)]


def page(conn: Connection, *, gone: timedelta) -> list[Model]:
    """All known models by name."""
    return [
        Model(**{**row._mapping, "engines": tuple(row.engines), "lacks": tuple(row.lacks)})
        for row in conn.execute(_LIST, {"gone": gone})
    ]


def promise(conn: Connection, name: str, *, ttft_p95_ms: int | None, itl_p95_ms: int | None) -> Slo | None:
    """Set what waiting calls are promised: 0 clears one, None leaves it. What holds now; None if no such model."""
    row = conn.execute(_PROMISE, {"name": name, "ttft": ttft_p95_ms, "itl": itl_p95_ms}).first()
    return Slo(row.ttft_p95_ms, row.itl_p95_ms) if row else None


def promised_seconds(conn: Connection) -> dict[str, float]:
    """The time to first token that calls are promised, by queue."""
    return {row.name: row.ttft_p95_ms / 1000 for row in conn.execute(_PROMISED)}


def facts(conn: Connection, names: list[str] | None = None) -> dict[str, ModelFacts]:
    """What is known about the lines of those of these models (None: of all) that were measured."""
    rows = conn.execute(_FACTS, {"names": names, "limit": _MOST_NAMES})
    return {row.name: ModelFacts(row.bytes_per_token, row.output_tokens, row.tokens_scale) for row in rows}


def measure(conn: Connection, *, every: timedelta, within: timedelta, most: int) -> list[str]:
    """Learn from slices that settled within the last while, at most so many of each model; models that were looked at.

    A model that was looked at less than `every` ago waits.
    """
    rows = conn.execute(_MEASURE, {"every": every, "within": within, "most": most, "limit": _MOST_MEASURED})
    return [row.name for row in rows]
