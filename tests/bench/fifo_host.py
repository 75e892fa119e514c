"""A pool's host that goes by first come, first served, for comparison: the version of the oldest open work is awake.

It is the product's host in everything else: `python -m bench.fifo_host pool --pool NAME`.
"""

from __future__ import annotations

import runpy

from penstock.domain.pools import policy
from penstock.domain.pools.decision import PoolDecision, Why
from penstock.domain.pools.situation import PoolSituation, Waiting


def decide(situation: PoolSituation) -> PoolDecision:
    """Whoever has the oldest open work comes, as soon as another has it."""
    waits = {queue: _oldest(one) for queue, one in situation.waiting.items() if queue not in situation.unfit}
    waits = {queue: seconds for queue, seconds in waits.items() if seconds is not None}
    awake = [one.queue for one in situation.residents]
    comes = max(waits, key=lambda queue: waits[queue], default=None)
    if comes is None or comes in awake:
        return PoolDecision(Why.STAYS)
    if len(awake) < situation.terms.awake:
        return PoolDecision(Why.FREE_PLACE, comes=comes)
    return PoolDecision(Why.QUANTUM, leaves=awake[0], comes=comes)


def _oldest(one: Waiting) -> float | None:
    return max([*one.oldest.values(), *([] if one.oldest_call is None else [one.oldest_call])], default=None)


if __name__ == "__main__":
    policy.decide = decide
    runpy.run_module("penstock_worker", run_name="__main__", alter_sys=True)
