"""Prices: rows that never change; of a model's rows the latest that is valid already counts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, text

from penstock.domain.accounts.price import Price

_ADD = text("""
    -- From now on unless told; never from earlier on, since what is recorded keeps its cost.
    insert into prices (model, valid_from, currency, input, cached_input, output, gpu)
    select :model, greatest(coalesce(cast(:valid_from as timestamptz), now()), now()),
           :currency, :input, :cached_input, :output, :gpu
    on conflict (model, valid_from) do nothing
    returning valid_from""")
_PASS_ON = text("""
    -- The price of a name is that of its versions that have none of their own.
    insert into prices (model, valid_from, currency, input, cached_input, output, gpu, inherited)
    select v.queue, p.valid_from, p.currency, p.input, p.cached_input, p.output, p.gpu, true
    from prices p join model_versions v on v.model = p.model and v.queue <> p.model
    where p.model = :model and p.valid_from = :valid_from
      and not exists (select from prices own where own.model = v.queue and not own.inherited)
    on conflict (model, valid_from) do nothing""")
_LOCK = text("lock table prices in share row exclusive mode")
_CURRENCY = text("select currency from prices limit 1")
_VALID = text("""
    select distinct on (model) model, valid_from, currency, input, cached_input, output, gpu from prices
    where valid_from <= now() and (cast(:models as text[]) is null or model = any(cast(:models as text[])))
    order by model, valid_from desc""")
_GPU_PER_TOKEN = text("""
    -- Of each model's latest slices.
    select named.model, sum(s.gpu_microseconds)::float8 / sum(s.input_tokens + s.output_tokens) as microseconds
    from unnest(cast(:models as text[])) as named(model)
    cross join lateral (
        select gpu_microseconds, input_tokens, output_tokens from slices
        where model = named.model and state = 'done' and gpu_microseconds > 0 and input_tokens > 0
        order by done_at desc limit :most) s
    group by named.model""")
_ALL = text("""
    select model, valid_from, currency, input, cached_input, output, gpu from prices
    where not inherited
    order by model, valid_from desc limit :limit""")


def add(
    conn: Connection,
    model: str,
    *,
    currency: str,
    input: int,
    cached_input: int,
    output: int,
    gpu: int,
    valid_from: datetime | None,
) -> datetime | None:
    """Add a price of a known model, and of its versions without one of their own.

    Since when it is valid, or None if another begins at that very moment.
    """
    values = {
        "model": model,
        "currency": currency,
        "input": input,
        "cached_input": cached_input,
        "output": output,
        "gpu": gpu,
        "valid_from": valid_from,
    }
    since: datetime | None = conn.execute(_ADD, values).scalar()
    if since is not None:
        conn.execute(_PASS_ON, {"model": model, "valid_from": since})
    return since


def lock(conn: Connection) -> None:
    """Let nobody else add a price until the end of the transaction."""
    conn.execute(_LOCK)


def currency(conn: Connection) -> str | None:
    """The one currency of all prices; None if there is none yet."""
    return conn.execute(_CURRENCY).scalar()


def valid(conn: Connection, models: Sequence[str] | None = None) -> dict[str, Price]:
    """What these models, or all, cost now; a model without a price is not in it."""
    found = conn.execute(_VALID, {"models": None if models is None else list(models)})
    return {row.model: Price(**row._mapping) for row in found}


def gpu_per_token(conn: Connection, models: Sequence[str], *, most: int = 500) -> dict[str, float]:
    """GPU-microseconds that a token took lately; a model that was not measured is not in it."""
    rows = conn.execute(_GPU_PER_TOKEN, {"models": list(models), "most": most})
    return {row.model: row.microseconds for row in rows}


def page(conn: Connection, *, limit: int = 1_000) -> list[Price]:
    """All prices, past and coming ones too, the newest of a model first."""
    return [Price(**row._mapping) for row in conn.execute(_ALL, {"limit": limit})]
