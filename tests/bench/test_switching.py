"""The switching benchmark rests on this: arrivals are drawn as they say, and the simulated pool counts what it says."""

from __future__ import annotations

import pytest
from bench import switching, trace
from bench.switching_policies import POLICIES, first_come, least_recently_used
from bench.switching_pool import Outcome, Pool, Switch
from bench.switching_scenario import ENGINES, LOADS, SEEDS, Arrivals, Batch, Call, Cell, cells, drawn

from penstock.domain.pools.decision import Unkept
from penstock.domain.work.lane import LANES, Lane

CELL = Cell(ENGINES[1], 4, 0.7)  # a switch takes 5 s


def arrivals(*batches: tuple[float, str, float], calls: tuple[Call, ...] = (), window: float = 9_000.0) -> Arrivals:
    """Batches of the standard lane: when, of which version, how many seconds of work."""
    made = [
        Batch(n, at, name, Lane.STANDARD, window, int(seconds * 100)) for n, (at, name, seconds) in enumerate(batches)
    ]
    return Arrivals(100.0, tuple(made), calls, dict.fromkeys("abc", 100.0))


def test_the_same_seed_draws_the_same_and_the_load_is_exact() -> None:
    rows = trace.synthetic()
    for cell in (CELL, Cell(ENGINES[0], 15, LOADS[2])):
        drawn_ = drawn(rows, cell, SEEDS[0])
        assert drawn_ == drawn(rows, cell, SEEDS[0]) != drawn(rows, cell, SEEDS[1])
        work = sum(batch.tokens / drawn_.tokens_per_second[batch.version] for batch in drawn_.batches)
        assert work / drawn_.span == pytest.approx(cell.load)
        assert {batch.lane for batch in drawn_.batches} == set(LANES)
        assert drawn_.calls


def test_bounds_leave_room_for_the_plans_quantum_where_switches_are_short_and_versions_few() -> None:
    assert {(cell.engine.switch_seconds, cell.versions) for cell in cells() if cell.has_room} == {
        (5.0, 4), (5.0, 8), (2.0, 4), (2.0, 8), (2.0, 15),
    }  # fmt: skip


def test_first_come_goes_back_and_forth_and_who_serves_until_empty_does_not() -> None:
    came = arrivals((0, "a", 20), (1, "b", 20), (2, "a", 20))
    first = Pool(CELL, came).run(first_come)
    assert (first.switches, first.lost_seconds, first.away_seconds) == (3, 15.0, 5.0)
    assert first.seconds == pytest.approx(75.0)
    until_empty = Pool(CELL, came).run(least_recently_used)
    assert (until_empty.switches, until_empty.lost_seconds, until_empty.away_seconds) == (2, 10.0, 0.0)
    assert first.tokens == until_empty.tokens == pytest.approx(6_000)


def test_a_wait_is_the_longest_time_without_an_engine_and_what_is_late_expires() -> None:
    outcome = Pool(CELL, arrivals((0, "a", 40), (0, "b", 10), window=48.0)).run(first_come)
    assert {(one.version, round(one.seconds)) for one in outcome.waits} == {("a", 5), ("b", 48)}
    assert (outcome.late, outcome.tokens) == (1, pytest.approx(4_000))


def test_a_broken_bound_counts_as_said_only_if_a_decision_named_it_while_it_held() -> None:
    def played(names_it_at: float) -> Outcome:
        def policy(pool: Pool) -> Switch | None:
            if pool.now >= names_it_at:
                pool.say([Unkept("b", "call", 65.0, 99.0)])
            return first_come(pool)

        return Pool(CELL, arrivals((0, "a", 200), calls=(Call(1.0, "b", 100),))).run(policy)

    assert [one.unsaid for one in played(20.0).waits if one.kind == "call"] == [False]
    assert [one.unsaid for one in played(90.0).waits if one.kind == "call"] == [True]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_ends_all_that_came(policy: str) -> None:
    run = switching.play((Cell(ENGINES[0], 4, 0.5), policy, 1, 0.5, 2, None))
    came = drawn(trace.synthetic(), run.cell, 1, 0.5)
    assert len(run.outcome.waits) == len(came.batches) + len(came.calls)
    found = switching.summed([run])
    assert found["groups_beyond_bound"] >= found["groups_unsaid"]
