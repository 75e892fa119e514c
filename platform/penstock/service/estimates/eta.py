"""ETA: what goes before a batch that is not there yet. When one that is there will be done: `outlook.py`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from penstock.domain.accounts.eta import OpenWork, Rival
from penstock.domain.pools.expected_wake import Asleep
from penstock.domain.work.lane import Lane
from penstock.service.core.transaction import Transaction
from penstock.service.pools import wake_times
from penstock.settings.dispatch import DispatchSettings
from penstock.store.batches import eta
from penstock.store.batches.eta import Beside, Own


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
    return {one.model: waking(_work(one, others[one.model], tenant), resting.get(one.model)) for one in own}


def waking(work: OpenWork, asleep: Asleep | None) -> OpenWork:
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
    """Estimates become tokens by what the model taught."""
    scale = own.tokens_scale or 1.0
    mine = [one for one in others if one.tenant == tenant]
    rivals = [one for one in others if one.tenant != tenant]
    return OpenWork(
        tokens=0.0,
        lines=0,
        above=scale * sum(one.above for one in others),
        sooner=scale * sum(one.sooner for one in mine),
        beside=scale * sum(one.beside for one in mine),
        rivals=[Rival(scale * one.beside, one.weight / own.weight) for one in rivals],
        tokens_per_second=own.tokens_per_second,
        lines_at_once=own.lines_at_once,
    )
