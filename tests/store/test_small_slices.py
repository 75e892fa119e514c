"""Bundles: small jobs are claimed together, in the order in which they would be one by one, and each stays its own."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from store import as_holder
from store.two import held, until_done_or_blocked
from store.world import World, records, remaining

from penstock.domain.accounts.account import accounts
from penstock.domain.work.batch import BatchState
from penstock.domain.work.lane import LANES, Lane
from penstock.domain.work.slice import Claim
from penstock.service.lifecycle import dispatch, work


def answers(*claims: Claim, seq: int = 1) -> list[work.SliceAnswers]:
    """All that is left of each."""
    return [work.SliceAnswers(claim, seq, records(claim, *remaining(claim))) for claim in claims]


def record(world: World, answered: list[work.SliceAnswers], ends: list[Claim]) -> frozenset[int]:
    return world.db.run(work.record, answered, ends)


def charged(world: World) -> dict[str, float]:
    rows = world.rows("select tenant, served from fair_turns where lane_rank = 1")
    return {row.tenant: row.served for row in rows}


def test_small_jobs_ride_in_one_claim_each_under_a_lease_of_its_own(world: World) -> None:
    jobs = [world.job(1) for _ in range(5)]
    worker = world.worker()
    claims = world.claim_some(worker)
    assert sorted(claim.batch for claim in claims) == sorted(jobs)
    assert len({claim.lease for claim in claims}) == 5
    assert world.claim_some(worker) == []


def test_no_more_lines_are_taken_than_asked_for(world: World) -> None:
    for _ in range(4):
        world.job(3)
    worker = world.worker()
    assert [len(world.claim_some(worker, lines=8)) for _ in range(3)] == [2, 2, 0]


def test_no_more_tokens_are_taken_than_a_slice_has(world: World) -> None:
    body = b'{"model":"tiny","max_tokens":25000}'
    for _ in range(5):
        world.job(1, body=body)
    worker = world.worker()
    assert [len(world.claim_some(worker)) for _ in range(4)] == [2, 2, 1, 0]


def test_a_large_slice_comes_alone_and_small_ones_pass_it_together(world: World) -> None:
    worker = world.worker()
    first, last = world.job(1, window="1h"), world.job(1, window="3h")
    batch = world.batch(2, window="2h")
    world.db.run(dispatch.feed, "tiny", world.settings)
    assert [[claim.batch for claim in world.claim_some(worker)] for _ in range(3)] == [[first, last], [batch], []]


def test_a_bundle_is_of_one_lane_the_most_urgent_one(world: World) -> None:
    urgent = [world.job(1, lane=Lane.PRIORITY) for _ in range(2)]
    other = [world.job(1) for _ in range(2)]
    worker = world.worker()
    for jobs in (urgent, other):
        assert sorted(claim.batch for claim in world.claim_some(worker)) == sorted(jobs)


def test_the_nearest_deadlines_ride_first(world: World) -> None:
    jobs = [world.job(1, window=f"{hours}h") for hours in (9, 2, 7, 1, 5)]
    worker = world.worker()
    taken = [claim.batch for _ in range(2) for claim in world.claim_some(worker, lines=3)]
    assert taken == [jobs[at] for at in (3, 1, 4, 2, 0)]


def test_tenants_share_a_bundle_by_their_weights_and_pay_for_it(world: World) -> None:
    world.tenant("globex", weight=2)
    for _ in range(12):
        world.job(1)
        world.job(1, tenant="globex")
    worker = world.worker()
    claims = world.claim_some(worker, lines=9)
    assert Counter(claim.tenant for claim in claims) == {"acme": 3, "globex": 6}
    tokens = claims[0].tokens
    assert charged(world) == pytest.approx(
        {"": 2.5 * tokens, "acme small": 3 * tokens, "globex small": 3 * tokens}, abs=tokens / 2
    )
    again = world.claim_some(worker, lines=9)
    assert Counter(claim.tenant for claim in again) == {"acme": 3, "globex": 6}


def test_a_bundle_takes_the_same_as_claims_one_by_one(world: World) -> None:
    def jobs() -> None:
        for hours, tenant in itertools.product((5, 3, 4), ("acme", "globex", "initech")):
            world.job(1 + hours % 2, window=f"{hours}h", tenant=tenant)

    jobs()
    worker = world.worker()
    one_by_one = [(claim.tenant, claim.lines) for _ in range(9) for claim in [world.claimed(worker)]]
    world.clear()
    jobs()
    worker = world.worker()
    together = [(claim.tenant, claim.lines) for claim in world.claim_some(worker, lines=99)]
    assert together == one_by_one


def test_a_tenant_that_is_full_is_passed_over_by_the_whole_bundle(world: World) -> None:
    for tenant in ("acme", "globex", "acme", "globex"):
        world.job(1, tenant=tenant)
    claims = world.claim_some(world.worker(), full={Lane.STANDARD: frozenset(accounts("acme"))})
    assert [claim.tenant for claim in claims] == ["globex", "globex"]


def test_a_repeated_nonce_gives_the_same_bundle_and_is_charged_once(world: World) -> None:
    for _ in range(3):
        world.job(1)
    worker, nonce = world.worker(), world.nonce()
    first = world.claim_some(worker, nonce=nonce)
    paid = charged(world)
    world.job(1)
    assert world.claim_some(worker, nonce=nonce) == first
    assert charged(world) == paid


@pytest.mark.parametrize("how", ["engine dies", "reaped", "unreadable"])
def test_a_suspicious_job_is_claimed_alone(world: World, how: str) -> None:
    jobs = [world.job(1, window=f"{n}h") for n in (1, 2, 3)]
    worker = world.worker()
    bad = world.claimed(worker)
    if how == "engine dies":
        world.db.run(as_holder.crash, bad, [1])
    elif how == "reaped":
        world.reap(bad.batch)
    else:
        world.db.run(work.unreadable, bad)
    world.db.run(dispatch.feed, "tiny", world.settings)
    taken = [[claim.batch for claim in world.claim_some(worker)] for _ in range(3)]
    assert taken == [[jobs[0]], jobs[1:], []]


def test_jobs_that_are_answered_end_in_the_same_transaction(world: World) -> None:
    jobs = [world.job(size) for size in (1, 2, 3)]
    claims = world.claim_some(world.worker())
    assert record(world, answers(*claims), claims) == frozenset()
    for job in jobs:
        found = world.find(job)
        assert (found.state, found.completed, found.usage.output_tokens) == ("completed", found.total, 2 * found.total)
        assert world.events(job) == ["batch.completed"]


def test_a_job_that_is_answered_in_part_stays_open_while_others_end(world: World) -> None:
    world.job(1), world.job(2)
    claims = sorted(world.claim_some(world.worker()), key=lambda claim: claim.lines)
    part = work.SliceAnswers(claims[1], 1, records(claims[1], 1))
    assert record(world, [*answers(claims[0]), part], [claims[0]]) == frozenset()
    assert [world.find(claim.batch).state for claim in claims] == ["completed", "in_progress"]
    rest = work.SliceAnswers(claims[1], 2, records(claims[1], 2))
    assert record(world, [rest], [claims[1]]) == frozenset()
    assert world.find(claims[1].batch).completed == 2


def test_a_lost_lease_loses_its_own_answers_alone(world: World) -> None:
    jobs = [world.job(1) for _ in range(3)]
    claims = world.claim_some(world.worker())
    world.reap(jobs[1])
    lost = record(world, answers(*claims), claims)
    assert lost == {claim.lease for claim in claims if claim.batch == jobs[1]}
    assert [world.find(job).state for job in jobs] == ["completed", "in_progress", "completed"]
    assert world.drain(jobs[1]).completed == 1


def test_a_record_may_be_repeated(world: World) -> None:
    jobs = [world.job(1) for _ in range(3)]
    claims = world.claim_some(world.worker())
    for _ in range(3):
        assert record(world, answers(*claims), claims) == frozenset()
    assert [world.find(job).completed for job in jobs] == [1, 1, 1]
    assert world.one("select count(*) from segments") == 3


def test_a_cancelled_member_keeps_what_is_answered_and_the_others_go_on(world: World) -> None:
    job, other = world.job(2), world.job(1)
    claims = {claim.batch: claim for claim in world.claim_some(world.worker())}
    world.cancel(job, "job")
    part = work.SliceAnswers(claims[job], 1, records(claims[job], 1))
    assert record(world, [part, *answers(claims[other])], [claims[job], claims[other]]) == frozenset()
    ended = world.find(job)
    assert (ended.state, ended.completed, ended.failed) == (BatchState.CANCELLED, 1, 1)
    assert world.find(other).state is BatchState.COMPLETED


def test_what_is_given_back_is_charged_with_its_own_lines_alone(world: World) -> None:
    jobs = [world.job(1) for _ in range(3)]
    claims = world.claim_some(world.worker())
    given: list[Any] = [(claim, [1] if claim.batch == jobs[0] else []) for claim in claims]
    for _ in range(2):
        world.db.run(work.give_back, given)
    assert world.rows("select deaths from suspects") == [(1,)]
    assert {state for job in jobs for state in world.states(job)} == {"queued"}
    assert [world.drain(job).completed for job in jobs] == [1, 1, 1]


def test_two_bundles_at_once_share_nothing_and_the_second_finds_what_is_left(world: World) -> None:
    for _ in range(12):
        world.job(1)
    one, other = world.worker(), world.worker()
    with held(world, lambda tx: work.claim(tx, one, LANES, world.nonce(), world.settings, None, 8)) as (pool, first):
        claiming = pool.submit(world.claim_some, other)
        assert until_done_or_blocked(world, claiming), "the clock's row is the other's until it commits"
        first.go_on()
        assert len(claiming.result(30)) == 4
    assert world.one("select count(*) from slices where state = 'running'") == 12


def test_enough_small_jobs_are_ready_to_fill_claims_and_few_hints_are_said(world: World) -> None:
    for _ in range(100):
        world.job(1)
    world.said.clear()
    world.worker()
    assert world.one("select count(*) from slices where state = 'ready'") == 100
    assert len([hint for hint in world.said if hint.task == "penstock.generate"]) == 1


def test_old_hints_of_small_jobs_are_said_again_as_few(world: World) -> None:
    for _ in range(30):
        world.job(1)
    world.worker()
    world.sql("update slices set ready_at = clock_timestamp() - interval '1 h'")
    world.said.clear()
    world.db.run(dispatch.hint_again, world.settings)
    assert len(world.said) == 1
