"""Tunings: what was measured of one way to start a model on one type of device; measured again, it is written over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from penstock.domain.models.tuning import Tuning
from penstock.domain.models.version import Definition

_SAME: Final = """(t.digest = v.digest or (t.model = v.model and t.engine = v.engine and t.source = v.source
                                       and t.arguments = v.arguments))"""
"""A version is what has its digest; before a worker has served it, what is started as it says."""


def tuned(queue: str, device: str) -> str:
    """SQL that joins what a version was tuned to on such a device, as `tuned`: its speed, and how long it loads.

    Both are SQL that stands for a text. Where nothing was measured at work, this is what it will likely do.
    """
    return f"""
        left join lateral (
            -- Started just so, else as was recommended.
            select t.tokens_per_second, t.load_seconds from model_versions v join tunings t on {_SAME}
            where v.queue = {queue} and t.device = {device} and t.tokens_per_second is not null
            order by t.arguments = v.arguments desc, t.chosen desc, t.measured_at desc limit 1) tuned on true"""


_FORGET_CHOICE = text("""
    -- A device has one recommendation for a model and an engine: that of its latest tuning.
    update tunings set chosen = false where model = :model and engine = :engine and device = :device and chosen""")
_PUT = text("""
    insert into tunings (key, device, model, source, engine, arguments, digest, chosen, tokens_per_second, kv_tokens,
                         load_seconds, wake_seconds, memory_bytes, trouble)
    values (:key, :device, :model, :source, :engine, cast(:arguments as text[]), :digest, :chosen, :tokens_per_second,
            :kv_tokens, :load_seconds, :wake_seconds, :memory_bytes, :trouble)
    on conflict (key, device) do update set
        digest = excluded.digest, chosen = excluded.chosen, tokens_per_second = excluded.tokens_per_second,
        kv_tokens = excluded.kv_tokens, load_seconds = excluded.load_seconds, wake_seconds = excluded.wake_seconds,
        memory_bytes = excluded.memory_bytes, trouble = excluded.trouble, measured_at = clock_timestamp()""")
_OF_VERSIONS = text(f"""
    select v.queue, t.model, t.source, t.engine, t.arguments, t.device, t.digest, t.chosen, t.tokens_per_second,
           t.kv_tokens, t.load_seconds, t.wake_seconds, t.memory_bytes, t.trouble, t.measured_at
    from model_versions v join tunings t on {_SAME}
    where v.queue = any(cast(:queues as text[]))
    order by v.queue, t.device, t.tokens_per_second desc nulls last, t.key limit :limit""")
_MOST: Final = 1_000


def forget_choice(conn: Connection, model: str, engine: str, device: str) -> None:
    """Recommend nothing for a model on a device any more."""
    conn.execute(_FORGET_CHOICE, {"model": model, "engine": engine, "device": device})


def put(conn: Connection, one: Tuning) -> None:
    """Write one point, over what was measured of the same before."""
    values: dict[str, Any] = {"key": one.key, "device": one.device, "model": one.model, "digest": one.digest}
    values |= {"source": one.definition.source, "engine": one.definition.engine}
    values |= {"arguments": list(one.definition.arguments), "chosen": one.chosen, "trouble": one.trouble}
    values |= {"tokens_per_second": one.tokens_per_second, "kv_tokens": one.kv_tokens}
    values |= {"load_seconds": one.load_seconds, "wake_seconds": one.wake_seconds, "memory_bytes": one.memory_bytes}
    conn.execute(_PUT, values)


def of_versions(conn: Connection, queues: Sequence[str]) -> dict[str, list[Tuning]]:
    """What was measured of these versions, by queue: by device, the fastest first; 1,000 rows at most."""
    found: dict[str, list[Tuning]] = {}
    for row in conn.execute(_OF_VERSIONS, {"queues": list(queues), "limit": _MOST}):
        found.setdefault(row.queue, []).append(_tuning(row))
    return found


def _tuning(row: Row[Any]) -> Tuning:
    values = dict(row._mapping)
    del values["queue"]
    definition = Definition(values.pop("source"), values.pop("engine"), tuple(values.pop("arguments")))
    return Tuning(**values, definition=definition)
