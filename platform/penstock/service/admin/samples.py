"""Samples: keepers write them, one of them each tick, and operators read charts of them without a Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from penstock.domain.api_errors import BadRequest
from penstock.domain.engines.latency_histogram import added, percentile_ms
from penstock.service.admin import overview
from penstock.service.admin.overview import ModelOverview
from penstock.service.core.transaction import Transaction
from penstock.settings.dispatch import DispatchSettings
from penstock.store.batches import batches
from penstock.store.fleet import workers
from penstock.store.work import open_work, samples
from penstock.store.work.samples import Flow, Reading, TickSample

MOST_POINTS: Final = 1_500
"""Of all that one answer holds."""
UNITS: Final = {
    "backlog_tokens": "tokens",
    "backlog_lines": "lines",
    "lines_per_second": "lines/s",
    "input_tokens_per_second": "tokens/s",
    "output_tokens_per_second": "tokens/s",
    "calls": "calls",
    "ttft_p50_ms": "ms",
    "ttft_p95_ms": "ms",
    "workers": "workers",
    "slots": "slots",
    "slots_used": "slots",
}
"""Every series, and what it counts."""
_FINE: Final = timedelta(hours=1)
"""So long a chart is made of ticks, also where its step is whole minutes: the last minute is in it then."""
_USUAL: Final = 300
_USUAL_APART: Final = 100
_TICK_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Curve:
    """One series of one model and lane; None of either: all together. A value for each time, None where none is known.

    A latency is None where nobody called, all else where no keeper sampled.
    """

    series: str
    model: str | None
    lane: str | None
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class Chart:
    """Curves over the same times, each the end of a span of `step_seconds`."""

    step_seconds: int
    times: tuple[datetime, ...]
    curves: tuple[Curve, ...]
    left_out: int
    """Models and lanes beyond what an answer holds: the smallest."""


def take(tx: Transaction, settings: DispatchSettings) -> int:
    """Write this tick's samples if nobody has; how many rows."""
    at = samples.begin(tx.conn)
    if at is None:
        return 0
    gone = timedelta(seconds=settings.worker_gone_seconds)
    found = open_work.read(tx.conn, gone=gone, late=0)
    fleet = workers.page(tx.conn, gone=False, after=None, limit=overview.MOST_WORKERS)
    seen = overview.by_model(found, fleet, {}, {}, settings.worker_gone_seconds)
    rows = _rows(seen, samples.flow(tx.conn, at))
    samples.write(tx.conn, at, rows)
    return len(rows)


def chart(
    tx: Transaction,
    series: Sequence[str],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    step_seconds: int | None = None,
    model: str | None = None,
    lane: str | None = None,
    by_model: bool = False,
    by_lane: bool = False,
) -> Chart:
    """Curves of these series, of the last hour unless told, at most `MOST_POINTS` in all.

    Raises BadRequest for a series that is none, or for more points than that.
    """
    if unknown := [one for one in series if one not in UNITS]:
        raise BadRequest(f"A series is one of {', '.join(UNITS)}, not {unknown[0][:40]!r}.", param="series")
    now = batches.now(tx.conn)
    until = min(until or now, now)
    since = max(since or until - timedelta(hours=1), now - samples.STEPS[60])
    if since >= until:
        raise BadRequest("since must be before until, and within the last week.", param="since")
    apart = by_model or by_lane
    step = step_seconds or _step(until - since, _USUAL_APART if apart else _USUAL, len(series))
    if step % 10:
        raise BadRequest("step must be a multiple of 10 seconds.", param="step")
    fine = since >= now - samples.STEPS[10] and (step % 60 != 0 or until - since <= _FINE)
    source = 10 if fine else 60
    step = -(-step // source) * source
    until = max(_cut(until, source), since + timedelta(seconds=source))
    width = timedelta(seconds=step)
    since = _cut(since, step)
    buckets = -(-(until - since) // width)
    if buckets * len(series) > MOST_POINTS:
        least = -(-(until - since) // timedelta(seconds=1)) * len(series) // MOST_POINTS + 1
        raise BadRequest(f"That is more than {MOST_POINTS:,} points: step must be {least} at least.", param="step")
    values = {"step": source, "since": since, "until": until, "width": width}
    model_, lane_ = (None if by_model else model or ""), (None if by_lane else lane or "")
    found = samples.read(tx.conn, series, **values, model=model_, lane=lane_)  # type: ignore[arg-type] # one dict for two
    sampled = samples.ticks(tx.conn, **values)  # type: ignore[arg-type]
    times = [since + number * width for number in range(buckets)]
    room = MOST_POINTS // (buckets * len(series))
    kept, left_out = _largest(found, room, None if apart else (model or "", lane or ""))
    curves = tuple(
        _curve(name, place, *key, found, times, sampled) for key in kept for place, name in enumerate(series)
    )
    return Chart(step, tuple(at + width for at in times), curves, left_out)


def _rows(seen: Sequence[ModelOverview], flow: Sequence[Flow]) -> list[TickSample]:
    """A row for each model and lane with anything in it, for each model, each lane, and for all."""
    cells: dict[tuple[str, str], TickSample] = {}

    def add(model: str, lane: str, **by: float) -> None:
        for key in {(model, lane), (model, ""), ("", lane), ("", "")}:
            one = cells.get(key) or TickSample(*key)
            cells[key] = replace(one, **{name: getattr(one, name) + value for name, value in by.items()})

    add("", "")
    for one in seen:
        for lane, open in one.lanes.items():
            add(one.model, lane, backlog_tokens=open.tokens, backlog_lines=open.lines + open.paused_lines)
    for it in flow:
        add(
            it.model,
            it.lane,
            lines_per_second=it.lines / _TICK_SECONDS,
            input_tokens_per_second=it.input_tokens / _TICK_SECONDS,
            output_tokens_per_second=it.output_tokens / _TICK_SECONDS,
        )
    for one in seen:
        add(one.model, "", calls=one.calls, workers=one.workers, slots=one.slots, slots_used=one.slots_used)
        cells[one.model, ""] = _with_ttft(cells[one.model, ""], one.ttft)
    cells["", ""] = _with_ttft(cells["", ""], added(one.ttft for one in seen))
    return list(cells.values())


def _with_ttft(one: TickSample, histogram: Sequence[int]) -> TickSample:
    p50, p95 = percentile_ms(histogram, 0.5), percentile_ms(histogram, 0.95)
    return replace(one, ttft_p50_ms=p50, ttft_p95_ms=p95)


def _step(span: timedelta, points: int, series: int) -> int:
    """A step of so many points or fewer: ten seconds, or whole minutes."""
    seconds = span.total_seconds() / min(points, MOST_POINTS // series - 1)
    return 10 if seconds <= 10 else int(-(-seconds // 60) * 60)


def _cut(since: datetime, step: int) -> datetime:
    """The whole step (of Unix time) in which a time is."""
    return datetime.fromtimestamp(since.timestamp() // step * step, UTC)


def _largest(found: Sequence[Reading], room: int, only: tuple[str, str] | None) -> tuple[list[tuple[str, str]], int]:
    if only is not None:
        return [only], 0
    sums: dict[tuple[str, str], float] = {}
    for one in found:
        sums[one.model, one.lane] = sums.get((one.model, one.lane), 0.0) + sum(value or 0.0 for value in one.values)
    ordered = sorted(sums, key=lambda key: (-sums[key], key))
    return ordered[:room], max(0, len(ordered) - room)


def _curve(
    name: str,
    place: int,
    model: str,
    lane: str,
    found: Sequence[Reading],
    times: Sequence[datetime],
    sampled: set[datetime],
) -> Curve:
    known = {one.began: one.values[place] for one in found if (one.model, one.lane) == (model, lane)}
    nothing = None if UNITS[name] == "ms" else 0.0
    values = tuple(known.get(at, nothing) if at in sampled else None for at in times)
    return Curve(name, model or None, lane or None, values)
