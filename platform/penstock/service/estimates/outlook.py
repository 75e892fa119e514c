"""Outlook: why open batches wait, and when each will have its answers, as far as that can be known now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from penstock.domain.accounts.eta import Expectation, OpenWork, Rival, expectation, span
from penstock.domain.pools.expected_wake import Asleep
from penstock.domain.work.batch import Batch, BatchState, PauseReason
from penstock.domain.work.lane import LANES
from penstock.domain.work.waiting import WhyWaiting
from penstock.service.core.transaction import Transaction
from penstock.service.estimates.eta import waking
from penstock.service.pools import wake_times
from penstock.settings import Settings
from penstock.store.batches import outlooks
from penstock.store.batches.outlooks import AskedModel, BatchesSeen, OpenWorkRow, OwnWork

_MOST_NAMED: Final = 10


@dataclass(frozen=True)
class BatchOutlook:
    """Why a batch waits, if it does, and when it is expected, while it is in progress."""

    waiting: WhyWaiting | None = None
    expected: Expectation | None = None


@dataclass(frozen=True)
class _ModelOutlook:
    """One model of a batch: what is known of it, and the work before the batch."""

    own: OwnWork
    model: AskedModel
    work: OpenWork
    asleep: Asleep | None
    lanes: Mapping[int, float]
    """Tokens in each more urgent lane, by rank."""


def of(tx: Transaction, batch: Batch, settings: Settings) -> BatchOutlook:
    """One batch's."""
    if batch.ended:
        return BatchOutlook()
    gone = timedelta(seconds=settings.worker_gone_seconds)
    return of_all(tx, outlooks.of(tx.conn, [batch.id], gone=gone), settings).get(batch.id, BatchOutlook())


def of_all(tx: Transaction, seen: BatchesSeen, settings: Settings) -> dict[str, BatchOutlook]:
    """Those of all that were seen, by id. A pool is asked, in a few statements, where a version has no live worker."""
    unserved = {one.model for one in seen.models.values() if not one.workers and one.pooled}
    asleep = wake_times.asleep(tx, unserved, settings) if unserved else {}
    by_model = defaultdict(list)
    for row in seen.work:
        by_model[row.model].append(row)
    return {one.id: _outlook(one, seen, by_model, asleep, settings) for one in seen.batches}


def _outlook(
    batch: Batch,
    seen: BatchesSeen,
    work: Mapping[str, list[OpenWorkRow]],
    asleep: Mapping[str, Asleep],
    settings: Settings,
) -> BatchOutlook:
    if batch.ended:
        return BatchOutlook()
    if batch.state in (BatchState.VALIDATING, BatchState.FINALIZING):
        return BatchOutlook(None if seen.has_io_worker else WhyWaiting("no_io_worker"))
    if batch.finish_as is not None or batch.state not in (BatchState.IN_PROGRESS, BatchState.PAUSED):
        return BatchOutlook()
    models = [
        _model_outlook(batch, own, seen.models[own.model], work.get(own.model, ()), asleep.get(own.model))
        for own in seen.own.get(batch.id, ())
    ]
    if batch.state is BatchState.PAUSED:
        why = WhyWaiting("budget" if batch.paused_as is PauseReason.BUDGET else "paused")
        return BatchOutlook(why, Expectation(reason="paused") if models else None)
    return BatchOutlook(_waiting(batch, models), _expected(batch, models, seen, settings))


def _expected(
    batch: Batch, models: Sequence[_ModelOutlook], seen: BatchesSeen, settings: Settings
) -> Expectation | None:
    if not models or seen.now is None:
        return None
    if not all(one.model.workers or one.asleep for one in models):
        return Expectation(reason="no_worker")
    if not all(one.asleep.expected for one in models if one.asleep):
        return Expectation(reason="asleep")
    if not all(one.work.tokens_per_second or one.asleep for one in models):
        return Expectation(reason="not_measured")
    spans = [span(one.work, settings.flush_seconds) for one in models]
    slowest = sorted(range(len(models)), key=lambda index: -spans[index].expected)
    parts = [models[index].work.part(models[index].model.name) for index in slowest]
    return expectation(spans, seen.now, batch.deadline, parts)


def _waiting(batch: Batch, models: Sequence[_ModelOutlook]) -> WhyWaiting | None:
    """Those that nobody will serve unless an operator does something are told first.

    Of an `asleep` sentence: models that the key which made the batch may not ask are not named.
    """
    unserved = [one for one in models if one.own.waits and not one.model.workers]
    if nobodys := sorted(one.model.name for one in unserved if one.asleep is None):
        return WhyWaiting("no_worker", tuple(nobodys[:_MOST_NAMED]))
    if unserved:
        allowed = None if batch.allowed_models is None else frozenset(batch.allowed_models)
        told = "; ".join(one.asleep.sentence(allowed) for one in unserved if one.asleep)
        return WhyWaiting("asleep", tuple(one.model.name for one in unserved), told)
    if any(one.own.runs for one in models):
        return None
    return max((why for one in models if (why := _behind(one))), key=lambda why: why.tokens or 0, default=None)


def _behind(one: _ModelOutlook) -> WhyWaiting | None:
    """What has the most tokens before it, if anything has."""
    work = one.work
    before = max(work.above, work.shared, work.sooner)
    if before < 1:
        return None
    tokens, seconds = round(before), before / work.tokens_per_second if work.tokens_per_second else None
    if before == work.above:
        lane = LANES[max(one.lanes, key=lambda rank: one.lanes[rank])]
        return WhyWaiting("lane", lane=lane, tokens=tokens, seconds=seconds)
    return WhyWaiting("earlier" if before == work.sooner else "tenants", tokens=tokens, seconds=seconds)


def _model_outlook(
    batch: Batch, own: OwnWork, model: AskedModel, rows: Iterable[OpenWorkRow], asleep: Asleep | None
) -> _ModelOutlook:
    """Estimates become tokens: others' by what the model taught, the batch's by its own slices as soon as one ended.

    What is counted of the batch itself is taken away.
    """
    scale, rank = model.tokens_scale or 1.0, batch.lane.rank
    lanes: dict[int, float] = defaultdict(float)
    beside, running, rivals = -own.beside, -own.running, []
    for row in rows:
        if row.rank < rank:
            lanes[row.rank] += scale * row.tokens
        elif row.rank == rank and row.tenant == batch.tenant:
            beside += row.tokens
            running += row.running
        elif row.rank == rank:
            rivals.append(Rival(scale * row.tokens, row.weight / own.weight))
    work = OpenWork(
        tokens=own.left_tokens * _own_scale(own, model),
        lines=own.left_lines,
        above=_rest(sum(lanes.values()), scale * own.above),
        sooner=scale * (own.sooner + _rest(running)),
        beside=scale * _rest(beside),
        rivals=rivals,
        tokens_per_second=model.tokens_per_second,
        lines_at_once=model.lines_at_once,
    )
    work = replace(work, beside=max(work.beside, work.sooner))
    return _ModelOutlook(own, model, waking(work, asleep), asleep, lanes)


def _rest(tokens: float, own: float = 0.0) -> float:
    """Without the batch's own; what is left by rounding is nothing."""
    rest = tokens - own
    return rest if rest > 0.5 else 0.0


def _own_scale(own: OwnWork, model: AskedModel) -> float:
    """Real over estimated tokens: of the batch's settled slices, else of its model's, else of its answers so far."""
    if own.settled_estimate and own.settled_tokens:
        return own.settled_tokens / own.settled_estimate
    if model.tokens_scale:
        return model.tokens_scale
    if own.recorded_estimate and own.recorded_tokens:
        return own.recorded_tokens / own.recorded_estimate
    return 1.0
