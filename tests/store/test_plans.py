"""How Postgres goes about a statement does not depend on which batch was there when it last looked."""

from __future__ import annotations

from store.world import World


def test_after_one_large_batch_the_slices_of_a_job_are_found_by_their_index(world: World) -> None:
    world.batch(*[1] * 1_000)
    world.sql("analyze slices")
    jobs = [world.job() for _ in range(3)]
    joined = "explain select b.id, sum(s.completed) from batches b left join slices s on s.batch = b.id"
    plan = world.rows(f"{joined} where b.id = any(:ids) group by b.id", ids=jobs)
    assert "Seq Scan on slices" not in "\n".join(row[0] for row in plan)
