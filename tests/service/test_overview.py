"""What operators see of the platform: overview, lanes, samples and recovery, over real rows, at a fixed cost."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from service.statements import heard
from store.world import MODEL, World

from penstock import keeper
from penstock.domain.api_errors import BadRequest
from penstock.domain.calls.ingress import Load
from penstock.domain.counted import COUNTED, INCIDENTS
from penstock.domain.engines.engine_report import EngineReport
from penstock.domain.engines.latency_histogram import BUCKETS, bucket
from penstock.domain.work.lane import Lane
from penstock.service.admin import overview, recovery, samples, sweep
from penstock.service.admin.overview import ModelOverview
from penstock.service.calls import ingresses
from penstock.service.lifecycle import dispatch, work
from penstock.store.fleet import models
from penstock.store.work import samples as stored

TTFT = [0] * BUCKETS
TTFT[bucket(0.2)] = 20
REPORT = EngineReport(
    slots=16, most_lines=12, calls=2, lines={"standard": 6, "flex": 2}, waiting={"calls": 0}, ttft=tuple(TTFT),
    input_tokens_per_second=50.0, output_tokens_per_second=70.0,
)  # fmt: skip
LOAD = Load(True, 3, 8, 12, "all", 100.0, REPORT)


def look(world: World) -> overview.Overview:
    return world.db.run(overview.look, world.settings)


def of(world: World, model: str = MODEL) -> ModelOverview:
    [found] = [one for one in look(world).models if one.model == model]
    return found


def test_the_backlog_is_in_tokens_and_in_hours_at_the_measured_rate(world: World) -> None:
    world.batch(2)
    world.batch(1, lane=Lane.FLEX)
    waiting = of(world)
    assert (waiting.workers, waiting.hours) == (0, None)
    assert {lane: one.batches for lane, one in waiting.lanes.items()} == {Lane.STANDARD: 1, Lane.FLEX: 1}
    assert waiting.tokens == sum(one.tokens for one in waiting.lanes.values()) > 0
    assert all(one.waiting_seconds is not None for one in waiting.lanes.values())
    worker = world.worker()
    world.db.run(ingresses.pulse, worker, LOAD)
    found = of(world)
    assert found.hours == pytest.approx(found.tokens / 100 / 3_600)
    assert (found.workers, found.calls, found.lines_in_engine) == (1, 3, 8)
    assert (found.slots, found.slots_used) == (16, 10)
    assert (found.input_tokens_per_second, found.output_tokens_per_second) == (50.0, 70.0)


def test_calls_times_stand_beside_what_they_were_promised(world: World) -> None:
    world.db.run(ingresses.pulse, world.worker(), LOAD)
    assert of(world).keeps_promise is None
    for promised, kept in ((100, False), (300, True)):
        world.db.run(lambda tx, ms=promised: models.promise(tx.conn, MODEL, ttft_p95_ms=ms, itl_p95_ms=None))
        found = of(world)
        assert found.ttft_p95_ms == pytest.approx(200, rel=0.125)
        assert (found.promised_ttft_ms, found.keeps_promise) == (promised, kept)


def test_a_batch_that_its_lane_can_not_do_in_time_is_late_and_one_that_is_paused_is_not(world: World) -> None:
    batch = world.batch(2)
    world.db.run(ingresses.pulse, world.worker(), LOAD)
    assert look(world).late_count == 0
    world.sql("update batches set deadline = clock_timestamp() + interval '1 ms'")
    seen = look(world)
    assert (seen.late_count, [one.batch for one in seen.late]) == (1, [batch])
    assert seen.late[0].expected_at > seen.late[0].deadline
    world.pause(batch)
    seen = look(world)
    assert seen.late_count == 0
    assert (seen.lanes[Lane.STANDARD].lines, seen.lanes[Lane.STANDARD].paused_lines > 0) == (0, True)


def test_what_is_missing_is_named_with_its_mend_and_goes_when_it_is_there(world: World) -> None:
    world.batch(1)
    missing = {one.what: one for one in look(world).missing}
    assert missing.keys() == {"keeper", "gpu_worker"}, "an io worker is there"
    assert missing["gpu_worker"].mend == f"penstock worker --model {MODEL}=FOLDER_OR_HF_ID"
    assert missing["gpu_worker"].model == MODEL
    worker = world.worker()
    assert {one.what for one in look(world).missing} == {"keeper", "ingress_token"}
    world.db.run(ingresses.announce, worker, "http://127.0.0.1:1", [MODEL], 16, world.settings)
    assert {one.what for one in look(world).missing} == {"keeper"}
    away = world.db.run(overview.look, world.settings, False)
    assert {one.what for one in away.missing} == {"keeper", "blobs"}
    world.sql("update workers set seen_at = seen_at - interval '1 hour'")
    lost = [one for one in look(world).missing if one.what == "worker"]
    assert len(lost) == 2
    assert all("Nothing was heard of it" in one.sentence for one in lost)


def test_a_lane_says_what_runs_and_what_part_of_the_slots_it_has(world: World) -> None:
    batch = world.batch(2)
    worker = world.worker()
    world.claimed(worker)
    world.db.run(ingresses.pulse, worker, LOAD)
    lanes = {one.lane: one for one in world.db.run(overview.lanes, world.settings, 20)}
    standard = lanes[Lane.STANDARD]
    assert (standard.slots_used, standard.share) == (6, 0.75)
    assert (standard.running_batches, [one.batch for one in standard.running]) == (1, [batch])
    assert (standard.running[0].slices, standard.running[0].workers) == (1, 1)
    assert standard.open.waiting_seconds is None, "something of it runs"
    assert (lanes[Lane.PRIORITY].share, lanes[Lane.PRIORITY].running) == (0.0, ())


def test_an_overview_costs_the_same_statements_with_many_batches_and_workers(world: World) -> None:
    async def count(few: bool) -> int:
        async with heard(world.settings.database_url) as (db, sent):
            await db.autocommit(overview.look, world.settings, True)
            return len([one for one in sent if "pg_catalog" not in one and "pulse" not in one])

    world.batch(1)
    before = asyncio.run(count(True))
    for _ in range(5):
        world.batch(2)
        world.worker()
    assert asyncio.run(count(False)) <= before <= 6


def ticked(world: World, seconds: int = 0) -> int:
    """Sample as a keeper does; after moving all samples so far into the past."""
    world.sql(f"update samples set at = at - make_interval(secs => {seconds})")
    return world.db.run(samples.take, world.settings)


def test_several_keepers_write_a_sample_once(world: World) -> None:
    world.batch(1)
    world.db.run(ingresses.pulse, world.worker(), LOAD)
    while True:
        at = world.rows("select date_bin('10 s', clock_timestamp(), 'epoch') as at")[0].at
        world.sql("truncate samples")
        written = [world.db.run(samples.take, world.settings) for _ in range(3)]
        if at == world.rows("select date_bin('10 s', clock_timestamp(), 'epoch') as at")[0].at:
            break
    assert written == [4, 0, 0], "model and lane, model, lane, all"
    rows = {(row.model, row.lane): row for row in world.rows("select * from samples where step = 10")}
    assert rows.keys() == {(MODEL, "standard"), (MODEL, ""), ("", "standard"), ("", "")}
    assert rows["", ""].backlog_tokens == rows[MODEL, "standard"].backlog_tokens > 0
    assert (rows[MODEL, ""].workers, rows[MODEL, ""].slots_used, rows[MODEL, "standard"].workers) == (1, 10, 0)
    assert rows["", ""].ttft_p95_ms == pytest.approx(200, rel=0.125)
    assert any("sample" in duty.__name__ for duty in keeper.DUTIES)


def test_what_was_recorded_counts_in_the_ten_seconds_before_one_tick(world: World) -> None:
    world.batch(4)
    world.flush(world.claimed(world.worker()), 1, 1, 2, 3)
    [at] = world.rows("update segments set created_at = clock_timestamp() - interval '1 h' returning created_at as at")

    def lines(seconds: float) -> dict[tuple[str, str], int]:
        found = world.db.run(lambda tx: stored.flow(tx.conn, at[0] + timedelta(seconds=seconds)))
        return {(one.model, one.lane): one.lines for one in found}

    assert [lines(10 * tick + 3) for tick in (-1, 0, 1)] == [{}, {(MODEL, "standard"): 3}, {}]


def planted(world: World, ticks: int, step: int = 10) -> datetime:
    """Ticks up to now, in which the model's backlog in tokens counts up from 1."""
    world.sql(f"""
        insert into samples (step, model, lane, at, backlog_tokens, ttft_p95_ms)
        select {step}, model, '',
               date_bin('60 s', clock_timestamp(), 'epoch') - {step} * ({ticks} - i) * interval '1 s',
               case when model = 'once' then 7 else i end,
               case when i > {ticks} - 3 then i end
        from generate_series(1, {ticks}) i, unnest(array['', 'tiny', 'once']) model
        where model <> 'once' or i = 1""")
    return world.rows("select date_bin('60 s', clock_timestamp(), 'epoch') as at")[0].at


def test_a_chart_has_a_value_for_each_span_and_none_where_nothing_was_sampled(world: World) -> None:
    end = planted(world, 12)
    chart = world.db.run(
        samples.chart, ["backlog_tokens", "ttft_p95_ms"], since=end - timedelta(seconds=180), until=end, step_seconds=60
    )
    assert chart.times == tuple(end - timedelta(seconds=60 * back) for back in (2, 1, 0))
    tokens, ttft = chart.curves
    assert tokens.values == (None, 3.5, 9.5)
    assert (ttft.values, ttft.series) == ((None, None, 12.0), "ttft_p95_ms")
    fine = world.db.run(
        samples.chart, ["backlog_tokens"], since=end - timedelta(seconds=50), until=end, step_seconds=10
    )
    assert fine.curves[0].values == (8.0, 9.0, 10.0, 11.0, 12.0)
    apart = world.db.run(
        samples.chart, ["backlog_tokens"], since=end - timedelta(seconds=120), until=end, step_seconds=60, by_model=True
    )
    assert {one.model: one.values for one in apart.curves} == {"tiny": (3.5, 9.5), "once": (7 / 6, 0.0)}


def test_a_chart_is_never_more_than_its_points_and_says_which_step_fits(world: World) -> None:
    now = datetime.now(UTC)
    day: dict[str, Any] = {"since": now - timedelta(hours=23), "until": now}
    with pytest.raises(BadRequest, match=r"more than 1,500 points: step must be \d+ at least"):
        world.db.run(samples.chart, ["calls"], step_seconds=10, **day)
    for series in (["calls"], list(samples.UNITS)[:6]):
        chart = world.db.run(samples.chart, series, **day)
        assert len(chart.times) * len(chart.curves) <= samples.MOST_POINTS
    for wrong in ({"step_seconds": 15}, {"since": now, "until": now - timedelta(hours=1)}):
        with pytest.raises(BadRequest):
            world.db.run(samples.chart, ["calls"], **wrong)
    with pytest.raises(BadRequest, match="A series is one of"):
        world.db.run(samples.chart, ["at"])


def test_minutes_are_made_of_ticks_and_what_is_old_goes(world: World, settings: Any) -> None:
    end = planted(world, 6)
    world.sql("update samples set at = at - interval '60 s'")
    world.db.run(lambda tx: stored.write(tx.conn, end - timedelta(seconds=60), []))
    [minute] = world.rows("select * from samples where step = 60 and model = 'tiny'")
    assert (minute.backlog_tokens, minute.ttft_p95_ms) == (3.5, 6)
    world.sql("update samples set at = at - interval '2 days'")
    assert world.db.run(sweep.old_samples, settings) == 13
    assert {row.step for row in world.rows("select step from samples")} == {60}
    world.sql("update samples set at = at - interval '6 days'")
    world.db.run(sweep.old_samples, settings)
    assert world.rows("select from samples") == []


def test_what_went_wrong_is_kept_with_its_time_and_what_it_was_about(world: World, settings: Any) -> None:
    batch = world.batch(1)
    holder = world.worker()
    world.claimed(holder)
    world.lapse(batch)
    world.db.run(dispatch.reap, batch)
    for _ in range(3):
        world.db.run(work.count, "engine_death", about=str(holder.id))
    world.db.run(work.lost, 5)
    seen = world.db.run(recovery.look, 2)
    kinds = {one.name: one for one in seen.kinds}
    assert tuple(kinds) == INCIDENTS
    assert set(INCIDENTS) < set(COUNTED)
    assert [(one.about, one.times) for one in kinds["lease_reaped"].newest] == [(batch, 1)]
    deaths = kinds["engine_death"]
    assert (deaths.times, [one.about for one in deaths.newest]) == (3, [str(holder.id)] * 2), "the newest two"
    assert (kinds["answers_dropped"].times, kinds["answers_dropped"].newest[0].times) == (5, 5)
    world.sql("update incidents set at = at - interval '8 days'")
    assert world.db.run(sweep.old_incidents, settings) == 6
    again = {one.name: one for one in world.db.run(recovery.look, 2).kinds}["engine_death"]
    assert (again.times, again.newest) == (3, ())
