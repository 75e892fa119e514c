"""A pool's host that goes by first come, first served, for comparison: the version of the oldest open work is awake.

The oldest is what came first and is not done, so whoever is awake stays until that is another version's. It is the
product's host in everything else: `python -m bench.fifo_host pool --pool NAME`.
"""

from __future__ import annotations

import os
import runpy

import psycopg

from penstock.domain.pools import policy
from penstock.domain.pools.decision import PoolDecision, Why
from penstock.domain.pools.situation import PoolSituation

_BATCHES = """
    select s.model, extract(epoch from clock_timestamp() - min(b.created_at))::float8
    from batches b join slices s on s.batch = b.id
    where b.state = 'in_progress' and s.state <> 'done' group by s.model"""


def decide(situation: PoolSituation) -> PoolDecision:
    """Whoever has the oldest open work comes, as soon as another has it."""
    with psycopg.connect(os.environ["PENSTOCK_DATABASE_URL"], autocommit=True) as conn:
        waits: dict[str, float] = dict(conn.execute(_BATCHES).fetchall())
    for queue, one in situation.waiting.items():
        if one.oldest_call is not None:
            waits[queue] = max(waits.get(queue, 0.0), one.oldest_call)
    awake = [one.queue for one in situation.residents]
    comes = max(
        (queue for queue in waits if queue not in situation.unfit), key=lambda queue: waits[queue], default=None
    )
    if comes is None or comes in awake:
        return PoolDecision(Why.STAYS)
    if len(awake) < situation.terms.awake:
        return PoolDecision(Why.FREE_PLACE, comes=comes)
    return PoolDecision(Why.QUANTUM, leaves=awake[0], comes=comes)


if __name__ == "__main__":
    policy.decide = decide
    runpy.run_module("penstock_worker", run_name="__main__", alter_sys=True)
