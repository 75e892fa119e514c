"""Shares: tenants take turns by tokens over weight, in the order of their deadlines, and being idle saves nothing."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from store.two import held, until_done_or_blocked
from store.world import MODEL, World

from penstock.domain.work.holder import Holder
from penstock.domain.work.lane import LANES, Lane
from penstock.service.lifecycle import dispatch, work
from penstock.store.accounts import fair_turns


def served(world: World, worker: Holder, times: int) -> list[str]:
    """The tenants of so many slices that are claimed and settled one after the other."""
    tenants = []
    for _ in range(times):
        claim = world.claimed(worker)
        tenants.append(claim.tenant)
        world.finish(claim)
    return tenants


def runs(tenants: list[str]) -> int:
    """The longest run of one tenant."""
    longest = now = 1
    for before, after in itertools.pairwise(tenants):
        now = now + 1 if before == after else 1
        longest = max(longest, now)
    return longest


def test_two_tenants_of_one_weight_take_turns_whatever_their_backlogs_and_deadlines(world: World) -> None:
    world.batch(*[1] * 60, tenant="globex", window="1h")
    world.batch(*[1] * 12)
    tenants = served(world, world.worker(), 24)
    assert Counter(tenants) == {"acme": 12, "globex": 12}
    assert runs(tenants) == 1


def test_a_tenant_of_weight_two_is_served_twice_as_much(world: World) -> None:
    world.tenant("globex", weight=2)
    world.batch(*[1] * 40)
    world.batch(*[1] * 40, tenant="globex")
    tenants = served(world, world.worker(), 36)
    assert abs(Counter(tenants)["globex"] - 24) <= 1
    assert runs(tenants) == 2


def test_shares_are_of_tokens_not_of_slices(world: World) -> None:
    world.batch(*[1] * 40)
    world.batch(*[4] * 40, tenant="globex")  # four times the tokens a slice
    tenants = served(world, world.worker(), 25)
    assert abs(Counter(tenants)["acme"] - 20) <= 1


def test_a_tenant_that_was_idle_gets_no_credit_for_it(world: World) -> None:
    world.batch(*[1] * 60)
    worker = world.worker()
    served(world, worker, 20)
    world.batch(*[1] * 20, tenant="globex")
    tenants = served(world, worker, 10)
    assert abs(Counter(tenants)["globex"] - 5) <= 1
    assert runs(tenants) <= 2


def test_a_tenant_that_comes_back_is_not_charged_for_what_it_used_while_alone(world: World) -> None:
    world.batch(*[1] * 20)
    worker = world.worker()
    served(world, worker, 20)
    world.batch(*[1] * 60, tenant="globex")
    served(world, worker, 30)
    world.batch(*[1] * 20)
    tenants = served(world, worker, 10)
    assert abs(Counter(tenants)["acme"] - 5) <= 1


def test_a_newcomer_is_served_next(world: World) -> None:
    for tenant in ("globex", "initech"):
        world.batch(*[1] * 20, tenant=tenant, window="1h")
    worker = world.worker()
    served(world, worker, 11)
    world.batch(1, window="72h")
    assert "acme" in served(world, worker, 2)


def test_within_a_tenant_the_earliest_deadline_goes_first(world: World) -> None:
    late = world.batch(1, 1, window="48h")
    soon = world.batch(1, 1, window="1h")
    worker = world.worker()
    world.batch(*[1] * 4, tenant="globex")
    claims = [world.claimed(worker) for _ in range(8)]
    assert [claim.batch for claim in claims if claim.tenant == "acme"] == [soon, soon, late, late]


def test_a_tenants_small_jobs_and_its_batch_take_turns_and_get_together_what_a_tenant_gets(world: World) -> None:
    world.batch(*[1] * 60)
    world.batch(*[1] * 60, tenant="globex", window="1h")
    for _ in range(40):
        world.job(1, window="72h", body=b'{"model":"tiny","max_tokens":3}')
    worker, tokens = world.worker(), Counter[str]()
    for _ in range(80):
        claim = world.claimed(worker)
        tokens[claim.account] += claim.tokens
        world.finish(claim)
    batch, small, other = tokens["acme"], tokens["acme small"], tokens["globex"]
    assert batch + small == pytest.approx(other, rel=0.15)
    assert small == pytest.approx(batch, rel=0.15), "turns by size while both have work"


def test_a_small_job_passes_its_tenants_own_backlog(world: World) -> None:
    world.batch(*[1] * 40, window="1h")
    worker = world.worker()
    served(world, worker, 5)
    job = world.job(1, window="72h")
    assert job in [world.claimed(worker).batch for _ in range(2)]


def test_a_lane_above_goes_first_whoever_was_served_least(world: World) -> None:
    world.batch(*[1] * 6, lane=Lane.PRIORITY)
    world.batch(*[1] * 6, tenant="globex", lane=Lane.STANDARD, window="1h")
    assert served(world, world.worker(), 7) == ["acme"] * 6 + ["globex"]


def test_the_shares_of_one_lane_are_not_charged_in_another(world: World) -> None:
    world.batch(*[1] * 8, lane=Lane.PRIORITY)
    worker = world.worker()
    served(world, worker, 8)
    world.batch(*[1] * 8, lane=Lane.FLEX)
    world.batch(*[1] * 8, lane=Lane.FLEX, tenant="globex")
    tenants = served(world, worker, 8)
    assert Counter(tenants) == {"acme": 4, "globex": 4}


def test_a_claim_says_where_it_stands(world: World) -> None:
    batch = world.batch(2, lane=Lane.FLEX)
    claim = world.claimed(world.worker())
    assert (claim.lane, claim.deadline, claim.tokens) == (Lane.FLEX, world.find(batch).deadline, 20)


def test_a_tenant_that_is_full_is_passed_over_in_that_lane_alone(world: World) -> None:
    world.batch(1, window="1h")
    urgent = world.batch(1, lane=Lane.PRIORITY)
    world.batch(1, tenant="globex")
    worker = world.worker()
    full = {Lane.STANDARD: frozenset({"acme"}), Lane.FLEX: frozenset({"acme", "globex"})}
    assert world.claimed(worker, full=full).batch == urgent
    assert world.claimed(worker, full=full).tenant == "globex"
    assert world.claim(worker, full=full) is None
    assert world.claimed(worker).tenant == "acme"


def test_a_repeated_nonce_is_charged_once(world: World) -> None:
    world.batch(2, 2)
    worker, nonce = world.worker(), world.nonce()
    for _ in range(3):
        assert world.claim(worker, nonce=nonce)
    assert charged(world) == {"": 0, "acme": 20}


def test_what_is_recorded_already_is_not_charged_again(world: World) -> None:
    batch = world.batch(4)
    claim = world.claimed(world.worker())
    world.flush(claim, 1, 1, 2, 3)
    world.reap(batch)
    world.claimed(world.worker())
    assert charged(world) == {"": 40, "acme": 50}


def test_a_claim_that_is_rolled_back_charges_nobody(world: World) -> None:
    world.batch(1)
    worker = world.worker()
    with pytest.raises(ZeroDivisionError):
        world.db.run(lambda tx: (work.claim(tx, worker, LANES, world.nonce(), world.settings), 1 / 0))
    assert charged(world) == {}


@pytest.mark.parametrize("second", ["acme", "globex"])
def test_two_claims_at_once_take_two_slices_and_both_are_charged(world: World, second: str) -> None:
    world.batch(1, 1)
    if second != "acme":
        world.batch(1, tenant=second)
    one, other = world.worker(), world.worker()
    with held(world, lambda tx: work.claim(tx, one, LANES, world.nonce(), world.settings)) as (pool, first):
        claiming = pool.submit(world.claim, other)
        assert until_done_or_blocked(world, claiming), "the clock's row is the other's until it commits"
        first.go_on()
        assert claiming.result(30) is not None
    assert world.one("select count(*) from slices where state = 'running'") == 2
    assert sum(charged(world).values()) == 20


def test_shares_that_are_even_with_the_clock_are_forgotten_and_nothing_changes(world: World) -> None:
    world.batch(*[1] * 4, tenant="globex")
    worker = world.worker()
    served(world, worker, 4)
    world.batch(*[1] * 20)
    served(world, worker, 8)
    assert set(charged(world)) == {"", "acme", "globex"}
    assert world.db.run(lambda tx: fair_turns.forget(tx.conn)) == 1
    assert set(charged(world)) == {"", "acme"}
    world.batch(*[1] * 8, tenant="globex")
    assert Counter(served(world, worker, 8)) == {"acme": 4, "globex": 4}


def charged(world: World) -> dict[str, float]:
    """What the standard lane's accounts were served."""
    return {row.tenant: row.served for row in world.rows("select tenant, served from fair_turns where lane_rank = 1")}


# Ready lists.


def ready(world: World) -> Counter[str]:
    return Counter(row.tenant for row in world.rows("select tenant from slices where state = 'ready'"))


def test_each_tenant_has_a_ready_list_of_its_own(world: World) -> None:
    world.batch(*[1] * 30, window="1h")
    world.batch(1, 1, tenant="globex", window="48h")
    world.batch(*[1] * 9, tenant="initech")
    world.worker()
    assert ready(world) == {"acme": 4, "globex": 2, "initech": 4}


def test_what_is_ready_and_no_longer_among_the_best_is_queued_again(world: World) -> None:
    late = world.batch(*[1] * 5, window="48h")
    world.worker()
    soon = world.batch(1, 1, 1, window="1h")
    assert world.states(soon) == ["ready"] * 3
    assert world.states(late) == ["ready"] + ["queued"] * 4
    assert world.db.run(dispatch.feed, MODEL, world.settings) == 0


def test_a_demoted_slice_is_not_hinted(world: World) -> None:
    world.batch(*[1] * 5, window="48h")
    world.worker()
    world.said.clear()
    world.batch(1, window="1h")
    assert len([hint for hint in world.said if hint.task == "penstock.generate"]) == 1


def test_fewer_workers_shorten_the_lists_and_none_leave_them(world: World) -> None:
    world.batch(*[1] * 20)
    workers = [world.worker() for _ in range(3)]
    assert ready(world) == {"acme": 12}
    world.db.run(work.mark, workers[0], "gone", world.settings)
    world.db.run(dispatch.feed, MODEL, world.settings)
    assert ready(world) == {"acme": 8}
    for worker in workers:
        world.db.run(work.mark, worker, "gone", world.settings)
    world.db.run(dispatch.feed, MODEL, world.settings)
    assert ready(world) == {"acme": 8}


def test_of_many_tenants_those_are_fed_that_were_served_least_and_all_come_to_their_turn(world: World) -> None:
    for number in range(40):
        world.batch(1, 1, tenant=f"tenant-{number:02}")
    worker = world.worker()
    assert len(ready(world)) == 32
    tenants = served(world, worker, 40)
    assert len(set(tenants)) == 40
    assert len(set(served(world, worker, 40))) == 40


def test_of_tenants_that_are_even_those_are_fed_and_served_first_whose_deadlines_are(world: World) -> None:
    for number in range(40):
        world.batch(1, tenant=f"tenant-{number:02}", window=f"{90 - number}m")
    worker = world.worker()
    by_deadline = [f"tenant-{number:02}" for number in reversed(range(40))]
    assert sorted(ready(world)) == sorted(by_deadline[:32])
    turns = world.db.run(lambda tx: fair_turns.turns(tx.conn, MODEL, LANES, promoted_share=0.5))
    assert [turn.account for turn in turns] == by_deadline[:32]
    assert served(world, worker, 40) == by_deadline


def test_two_feeds_at_once_fill_the_lists_once(world: World) -> None:
    world.worker(state="starting")
    world.batch(*[1] * 20)
    world.sql("update workers set state = 'ready' where kind = 'gpu'")
    with held(world, lambda tx: dispatch.feed(tx, MODEL, world.settings)) as (pool, first):
        feeding = pool.submit(world.db.run, dispatch.feed, MODEL, world.settings)
        assert not until_done_or_blocked(world, feeding), "a feed waits for nobody"
        assert feeding.result(30) == 0
        first.go_on()
    assert ready(world) == {"acme": 4}
