"""How Postgres goes about a statement does not depend on which batch was there when it last looked."""

from __future__ import annotations

from store.world import World

from penstock.store.batches import batches


def test_after_one_large_batch_the_slices_of_a_job_are_found_by_their_index(world: World) -> None:
    world.batch(*[1] * 1_000)
    world.sql("analyze slices")
    jobs = [world.job() for _ in range(3)]
    joined = "explain select b.id, sum(s.completed) from batches b left join slices s on s.batch = b.id"
    plan = world.rows(f"{joined} where b.id = any(:ids) group by b.id", ids=jobs)
    assert "Seq Scan on slices" not in "\n".join(row[0] for row in plan)


def test_many_jobs_end_without_a_look_at_what_others_have(world: World) -> None:
    world.batch(*[1] * 1_000)
    jobs = [world.job() for _ in range(24)]
    for table in ("slices", "segments", "batches"):
        world.sql(f"analyze {table}")
    plan = plan_of_the_end(world, jobs)
    assert "Seq Scan on slices" not in plan
    assert "One-Time Filter: (NOT" in plan, "the segments of jobs are not asked for"


def test_a_batch_ends_without_a_look_at_the_older_segments_of_others(world: World) -> None:
    """They have many a slice: then the oldest of all look like a short way to the batch's first."""
    world.batch(200)
    claim = world.claimed(world.worker())
    for line in range(1, 200):
        world.flush(claim, line, line)
    batch = world.batch(1)
    for table in ("slices", "segments", "batches"):
        world.sql(f"analyze {table}")
    assert "segments_time" not in plan_of_the_end(world, [batch])


def plan_of_the_end(world: World, batches_: list[str]) -> str:
    files = dict.fromkeys(("output_file", "error_file", "merged_output_file", "merged_error_file", "trace_file"))
    values = {"ids": batches_, "state": "completed", "errors": "[]", "error_count": 0}
    return "\n".join(row[0] for row in world.rows(f"explain {batches._END.text}", **values, **files))
