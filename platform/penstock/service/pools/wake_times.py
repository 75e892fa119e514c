"""Wake times: which versions without a worker live pools may serve, and when each is likely to be awake."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from penstock.domain.pools.expected_wake import Asleep, ExpectedWake, expected_wake
from penstock.domain.pools.pool import PoolHost, ResidentState
from penstock.domain.pools.situation import PoolSituation
from penstock.service.core.transaction import Transaction
from penstock.service.pools import situations
from penstock.settings.dispatch import DispatchSettings
from penstock.store.pools import pools
from penstock.store.pools.pools import Servable


def asleep(tx: Transaction, queues: Collection[str], settings: DispatchSettings) -> dict[str, Asleep]:
    """Those of these versions, which no live worker serves, that a live pool may serve; by queue."""
    gone = timedelta(seconds=settings.worker_gone_seconds)
    found = pools.servable(tx.conn, sorted(queues), gone=gone) if queues else {}
    hosts = pools.hosts(tx.conn, sorted({one.pool for one in found.values()}), gone=gone) if found else {}
    able = [(pool, host.id) for pool, live in hosts.items() for host in live if host.may_switch]
    now = {host: situations.look(tx, pool, host, settings) for pool, host in able}
    told: dict[str, Asleep] = {}
    for queue, one in found.items():
        on_hosts = [_on_host(one, host, now[host.id]) for host in hosts.get(one.pool, ()) if host.id in now]
        if on_hosts:
            told[queue] = min(on_hosts, key=_seconds)
    return told


def _on_host(one: Servable, host: PoolHost, now: PoolSituation) -> Asleep:
    switch = now.cost(one.queue)
    waking = next((each for each in host.residents if each.queue == one.queue and each.state in _COMES), None)
    expected = expected_wake(now, one.queue)
    if waking is not None:
        passed = (datetime.now(UTC) - waking.since).total_seconds()
        expected = ExpectedWake(max(1.0, switch - passed), ())
    return Asleep(one.queue, one.pool, one.on_demand, waking is not None, expected, now.speed(one.queue), switch)


_COMES = (ResidentState.WAKING, ResidentState.AWAKE)


def _seconds(one: Asleep) -> float:
    return one.expected.seconds if one.expected else float("inf")
