"""ETA: when an open batch will have its answers, as far as that can be known now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from penstock.domain.accounts.eta import Expectation, OpenWork, Rival, expectation, span
from penstock.domain.pools.expected_wake import Asleep
from penstock.domain.work.batch import Batch, BatchState
from penstock.domain.work.lane import Lane
from penstock.service.core.transaction import Transaction
from penstock.service.pools import wake_times
from penstock.settings import Settings
from penstock.settings.dispatch import DispatchSettings
from penstock.store.batches import eta
from penstock.store.batches.eta import Beside, Own


def expect(tx: Transaction, batch: Batch, settings: Settings) -> Expectation | None:
    """When a batch in progress (or paused) will have its answers; None before and after that."""
    if batch.finish_as is not None or batch.state not in (BatchState.IN_PROGRESS, BatchState.PAUSED):
        return None
    own = eta.own(tx.conn, batch.id, gone=timedelta(seconds=settings.worker_gone_seconds))
    if not own:
        return None
    if batch.state is BatchState.PAUSED:
        return Expectation(reason="paused")
    resting = wake_times.asleep(tx, [one.model for one in own if not one.workers], settings)
    if not all(one.workers or one.model in resting for one in own):
        return Expectation(reason="no_worker")
    if not all(one.expected for one in resting.values()):
        return Expectation(reason="asleep")
    if not all(one.tokens_per_second or one.model in resting for one in own):
        return Expectation(reason="not_measured")
    others = defaultdict(list)
    models = [one.model for one in own]
    for row in eta.beside(tx.conn, batch.id, models=models, rank=batch.lane.rank, deadline=batch.deadline):
        others[row.model].append(row)
    works = [_waking(_work(one, others[one.model], batch.tenant), resting.get(one.model)) for one in own]
    spans = [span(work, settings.flush_seconds) for work in works]
    return expectation(spans, own[0].now, batch.deadline)


def ahead(
    tx: Transaction, tenant: str, models: Sequence[str], lane: Lane, window: timedelta, settings: DispatchSettings
) -> dict[str, OpenWork]:
    """For each of these models that is known: what goes before a batch that would be created now, which is empty yet.

    `lines_at_once` is 0 where no live worker serves it and no live pool may, and `tokens_per_second` where none has
    measured itself, and nobody has tuned it on such a device.
    """
    own = eta.nothing_yet(tx.conn, tenant, models=models, gone=timedelta(seconds=settings.worker_gone_seconds))
    others = defaultdict(list)
    if own:
        deadline = own[0].now + window
        names = [one.model for one in own]
        for row in eta.beside(tx.conn, "", models=names, rank=lane.rank, deadline=deadline):
            others[row.model].append(row)
    resting = wake_times.asleep(tx, [one.model for one in own if not one.workers], settings)
    return {one.model: _waking(_work(one, others[one.model], tenant), resting.get(one.model)) for one in own}


def _waking(work: OpenWork, asleep: Asleep | None) -> OpenWork:
    """Work whose version is asleep begins once it is awake, if somebody can say when; how many lines it takes at once
    is not known then."""
    if asleep is None or asleep.expected is None:
        return work
    return replace(
        work,
        tokens_per_second=asleep.tokens_per_second,
        lines_at_once=1,
        wake_seconds=asleep.expected.seconds,
        switch_seconds=asleep.switch_seconds,
    )


def _work(own: Own, others: Sequence[Beside], tenant: str) -> OpenWork:
    """Estimates become tokens: others' by what the model taught, the batch's by its own slices as soon as one ended."""
    scale = own.tokens_scale or 1.0
    mine = [one for one in others if one.tenant == tenant]
    rivals = [one for one in others if one.tenant != tenant]
    return OpenWork(
        tokens=own.left_tokens * _own_scale(own),
        lines=own.left_lines,
        above=scale * sum(one.above for one in others),
        sooner=scale * sum(one.sooner for one in mine),
        beside=scale * sum(one.beside for one in mine),
        rivals=[Rival(scale * one.beside, one.weight / own.weight) for one in rivals],
        tokens_per_second=own.tokens_per_second,
        lines_at_once=own.lines_at_once,
    )


def _own_scale(own: Own) -> float:
    """Real over estimated tokens: of the batch's settled slices, else of its model's, else of its answers so far."""
    if own.settled_estimate and own.settled_tokens:
        return own.settled_tokens / own.settled_estimate
    if own.tokens_scale:
        return own.tokens_scale
    if own.recorded_estimate and own.recorded_tokens:
        return own.recorded_tokens / own.recorded_estimate
    return 1.0
