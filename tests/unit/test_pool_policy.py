"""The policy of a pool: who stays, who leaves, who comes, and what it says can't be kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.pools.decision import Why
from penstock.domain.pools.policy import decide
from penstock.domain.pools.situation import Deadline, PoolSituation, PoolTerms, Resident, Waiting
from penstock.domain.work.lane import LANES, Lane

RATE = 100.0
COST = 10.0
QUANTUM = 100.0
"""The plan's, of a switch that takes 10 s."""


def work(
    seconds: float = 0.0,
    *,
    lane: Lane = Lane.STANDARD,
    waited: float = 0.0,
    due: float | None = None,
    call: float | None = None,
) -> Waiting:
    """So many seconds of work in one lane, all due then."""
    tokens = int(seconds * RATE)
    deadlines = () if due is None else (Deadline(due, tokens),)
    return Waiting(tokens, {lane: waited} if tokens else {}, deadlines, call)


def pool(
    waiting: Mapping[str, Waiting],
    *awake: Resident,
    terms: PoolTerms | None = None,
    pinned: str = "",
    unfit: str = "",
    calls: int = 0,
    lost: float = 0.0,
) -> PoolSituation:
    """A pool whose switches take 10 s each; pinned and unfit are letters."""
    names = {*waiting, *(one.queue for one in awake), *pinned, *unfit}
    return PoolSituation(
        terms or PoolTerms(),
        awake,
        waiting,
        dict.fromkeys(names, RATE),
        dict.fromkeys(names, COST),
        frozenset(pinned),
        frozenset(unfit),
        calls,
        lost,
    )


def moves(situation: PoolSituation) -> tuple[Why, str | None, str | None]:
    found = decide(situation)
    return found.why, found.leaves, found.comes


def test_a_free_place_goes_to_whoever_has_work_and_stays_free_without() -> None:
    assert moves(pool({"a": work(), "b": work(5)})) == (Why.FREE_PLACE, None, "b")
    assert moves(pool({"a": work()})) == (Why.NO_WORK, None, None)


def test_who_has_work_stays_for_its_quantum() -> None:
    waiting = {"a": work(50), "b": work(500)}
    assert moves(pool(waiting, Resident("a", QUANTUM - 1))) == (Why.STAYS, None, None)
    assert moves(pool(waiting, Resident("a", QUANTUM))) == (Why.QUANTUM, "a", "b")


def test_after_its_quantum_it_stays_on_if_nobody_is_worth_more() -> None:
    assert moves(pool({"a": work(500), "b": work(50)}, Resident("a", 10 * QUANTUM)))[0] is Why.STAYS


def test_who_has_only_calls_in_its_engine_has_its_quantum_like_others() -> None:
    waiting = {"a": work(), "b": work(50)}
    assert moves(pool(waiting, Resident("a", QUANTUM - 1, 0.0)))[0] is Why.STAYS
    assert moves(pool(waiting, Resident("a", QUANTUM, 0.0))) == (Why.QUANTUM, "a", "b")


def test_a_more_urgent_lane_is_worth_more_than_any_backlog() -> None:
    waiting = {"a": work(5_000), "b": work(1, lane=Lane.PRIORITY)}
    assert moves(pool(waiting, Resident("a", QUANTUM))) == (Why.QUANTUM, "a", "b")
    waiting = {"a": work(1, lane=Lane.PRIORITY), "b": work(5_000)}
    assert moves(pool(waiting, Resident("a", QUANTUM)))[0] is Why.STAYS


def test_who_has_no_work_leaves_after_its_linger() -> None:
    waiting = {"b": work(5)}
    assert moves(pool(waiting, Resident("a", 50, 1)))[0] is Why.STAYS
    assert moves(pool(waiting, Resident("a", 50, 2))) == (Why.IDLE, "a", "b")


def test_where_an_hour_has_lost_its_share_an_idle_one_stays_for_less_than_a_quantum_of_work() -> None:
    assert moves(pool({"b": work(5)}, Resident("a", 50, 9), lost=359))[0] is Why.STAYS
    assert moves(pool({"b": work(QUANTUM)}, Resident("a", 50, 9), lost=359)) == (Why.IDLE, "a", "b")
    assert moves(pool({"b": work(5)}, Resident("a", QUANTUM, 9), lost=359)) == (Why.IDLE, "a", "b")


def test_a_bound_takes_the_place_in_time_for_the_switch() -> None:
    def waits(seconds: float) -> PoolSituation:
        return pool({"a": work(900), "b": work(5, waited=seconds)}, Resident("a", 80))

    assert moves(waits(3_600 - COST - 200))[0] is Why.STAYS
    assert moves(waits(3_600 - COST - 1)) == (Why.BOUND, "a", "b")
    young = dataclasses.replace(waits(3_600 - COST - 1), residents=(Resident("a", 19),))
    assert moves(young)[0] is Why.STAYS, "the least quantum is everybody's"


def test_priority_has_ten_minutes_and_flex_waits_for_its_deadline_alone() -> None:
    waiting = {"a": work(900, lane=Lane.PRIORITY), "b": work(5, lane=Lane.PRIORITY, waited=595)}
    assert moves(pool(waiting, Resident("a", 80))) == (Why.BOUND, "a", "b")
    waiting = {"a": work(900), "b": work(500, lane=Lane.FLEX, waited=1e6)}
    assert moves(pool(waiting, Resident("a", 1e6)))[0] is Why.STAYS


def test_a_deadline_takes_the_place_while_it_can_be_met_and_not_afterwards() -> None:
    def due(seconds: float) -> PoolSituation:
        return pool({"a": work(900), "b": work(200, lane=Lane.FLEX, due=seconds)}, Resident("a", 99))

    assert moves(due(400))[0] is Why.STAYS
    assert moves(due(215)) == (Why.DEADLINE, "a", "b")
    missed = decide(due(205))
    assert missed.comes is None
    assert [(one.queue, one.lane, one.bound_seconds) for one in missed.unkept] == [("b", "deadline", 205)]


def test_a_waiting_call_takes_the_place_when_it_has_waited_its_bound() -> None:
    waiting = {"a": work(900), "b": work(call=50.0)}
    assert moves(pool(waiting, Resident("a", 90)))[0] is Why.STAYS
    waiting = {"a": work(900), "b": work(call=59.0)}
    assert moves(pool(waiting, Resident("a", 90))) == (Why.CALL, "a", "b")


def test_calls_switch_no_more_than_so_often_in_an_hour_and_who_waits_is_told() -> None:
    waiting = {"a": work(900), "b": work(5, lane=Lane.FLEX, call=59.0)}
    assert decide(pool(waiting, Resident("a", 90), calls=19)).comes == "b"
    found = decide(pool(waiting, Resident("a", 90), calls=20))
    assert found.comes is None
    assert [(one.queue, one.lane) for one in found.unkept] == [("b", "call")]


def test_only_a_switch_that_would_not_be_made_without_the_call_counts_as_one_for_it() -> None:
    waiting = {"b": work(5, call=5.0)}
    assert moves(pool(waiting, Resident("a", 50, 9))) == (Why.IDLE, "a", "b")
    assert moves(pool(waiting, Resident("a", 50, 9), lost=359)) == (Why.CALL, "a", "b")
    assert moves(pool(waiting, Resident("a", 50, 9), lost=359, calls=20))[0] is Why.STAYS


def test_bounds_shorten_the_quantum_so_that_all_are_kept() -> None:
    # Five more, each with ten minutes: 5 x (10 + q) <= 600.
    waiting = {name: work(900, lane=Lane.PRIORITY) for name in "abcdef"}
    terms = PoolTerms(share_lost=0.05)
    found = decide(pool(waiting, Resident("a", 30), terms=terms))
    assert 90 < found.quantum_seconds < 115
    assert found.unkept == ()
    assert decide(pool({"a": work(900), "b": work(900)}, Resident("a", 30), terms=terms)).quantum_seconds == 200


def test_what_cant_be_kept_is_said_with_its_bound_and_its_turn() -> None:
    names = [f"v{number:02d}" for number in range(25)]
    waiting = {name: work(900, lane=Lane.PRIORITY, waited=10) for name in names}
    found = decide(pool(waiting, Resident("v00", 30)))
    assert found.quantum_seconds == PoolTerms().least_quantum_seconds
    assert found.unkept
    assert {one.lane for one in found.unkept} == {"priority"}
    assert {one.bound_seconds for one in found.unkept} == {600}
    turns = [one.expected_seconds for one in found.unkept]
    assert turns == sorted(turns)
    assert 600 < turns[0] < 650


def test_bounds_that_are_broken_already_go_round_by_how_much_each_has_waited_of_its_own() -> None:
    waiting = {
        "a": work(900),
        "b": work(900, waited=7_300),
        "c": work(900, lane=Lane.PRIORITY, waited=1_500),
        "d": work(900, waited=3_700),
    }
    assert moves(pool(waiting, Resident("a", 19))) == (Why.STAYS, None, None)
    assert moves(pool(waiting, Resident("a", 20))) == (Why.BOUND, "a", "c")


def test_what_is_broken_is_caught_up_with_no_more_than_half_of_the_time_is_switching() -> None:
    slow = PoolTerms(least_quantum_seconds=5.0)
    waiting = {"a": work(900), "b": work(900, waited=7_300)}
    assert moves(pool(waiting, Resident("a", COST - 1), terms=slow))[0] is Why.STAYS
    assert moves(pool(waiting, Resident("a", COST), terms=slow)) == (Why.BOUND, "a", "b")


def test_nobody_leaves_a_job_that_would_be_late_for_it_unless_the_other_one_is_shorter() -> None:
    mine = work(100, due=120)
    assert moves(pool({"a": mine, "b": work(5, waited=3_600)}, Resident("a", QUANTUM)))[0] is Why.STAYS
    assert moves(pool({"a": mine, "b": work(50, due=62)}, Resident("a", QUANTUM))) == (Why.DEADLINE, "a", "b")
    assert moves(pool({"a": mine, "b": work(300, due=312)}, Resident("a", QUANTUM)))[0] is Why.STAYS


def test_pinned_ones_come_first_and_never_leave() -> None:
    waiting = {"a": work(900), "b": work(900, waited=1e5), "p": work()}
    assert moves(pool(waiting, Resident("a", 0), pinned="p")) == (Why.PINNED, "a", "p")
    assert moves(pool(waiting, Resident("p", 1e6, 1e6), pinned="p"))[0] is Why.STAYS
    two = PoolTerms(awake=2)
    assert moves(pool(waiting, Resident("p", 1e6, 1e6), Resident("a", QUANTUM), pinned="p", terms=two)) == (
        Why.BOUND,
        "a",
        "b",
    )


def test_unfit_ones_never_come_not_even_pinned() -> None:
    assert moves(pool({"a": work(900)}, unfit="a"))[0] is Why.NO_WORK
    assert moves(pool({"a": work(900)}, unfit="a", pinned="a"))[0] is Why.NO_WORK


def test_of_two_places_the_idle_ones_goes_first() -> None:
    two = PoolTerms(awake=2)
    waiting = {"a": work(10), "c": work(10)}
    assert moves(pool(waiting, Resident("a", 500), Resident("b", 5, 3), terms=two)) == (Why.IDLE, "b", "c")


seconds = st.floats(0, 8_000)
works = st.builds(
    lambda tokens, oldest, deadlines, call: Waiting(tokens, oldest if tokens else {}, deadlines, call),
    st.integers(0, 500_000),
    st.dictionaries(st.sampled_from(LANES), seconds, min_size=1),
    st.lists(st.builds(Deadline, st.floats(-100, 20_000), st.integers(1, 500_000)), max_size=3).map(
        lambda all: tuple(sorted(all, key=lambda one: one.seconds))
    ),
    st.none() | st.floats(0, 100),
)
letters = "abcdefg"


@st.composite
def situations(draw: st.DrawFn) -> PoolSituation:
    """Any situation of up to seven versions; some not measured yet."""
    places = draw(st.integers(1, 3))
    awake = draw(st.lists(st.sampled_from(letters), unique=True, max_size=places))
    measured = draw(st.sets(st.sampled_from(letters)))
    return PoolSituation(
        PoolTerms(
            awake=places,
            share_lost=draw(st.sampled_from([0.05, 0.1, 0.5])),
            linger_seconds=draw(st.sampled_from([0, 2])),
        ),
        tuple(Resident(name, draw(seconds), draw(st.sampled_from([0.0, 1.0, 50.0]))) for name in awake),
        draw(st.dictionaries(st.sampled_from(letters), works)),
        {name: draw(st.floats(1, 10_000)) for name in sorted(measured)},
        {name: draw(st.floats(0, 100)) for name in sorted(measured)},
        frozenset(draw(st.sets(st.sampled_from(letters), max_size=2))),
        frozenset(draw(st.sets(st.sampled_from(letters), max_size=2))),
        draw(st.integers(0, 30)),
        draw(st.floats(0, 3_600)),
    )


few = settings(deadline=None, max_examples=40)


@few
@given(situations())
def test_whoever_comes_is_fit_and_has_work_and_whoever_leaves_makes_place_for_it(situation: PoolSituation) -> None:
    found, awake = decide(situation), {one.queue for one in situation.residents}
    assert found == decide(situation), "the same situation gives the same decision"
    if found.comes is None:
        assert found.leaves is None
        return
    assert found.comes not in awake | situation.unfit
    waiting = situation.waiting.get(found.comes, Waiting())
    assert found.comes in situation.pinned or waiting.tokens or waiting.oldest_call is not None
    assert (found.leaves is None) == (len(awake) < situation.terms.awake)
    assert found.leaves is None or found.leaves in awake - situation.pinned


@few
@given(situations())
def test_no_place_stays_free_while_lines_wait_and_a_quantum_is_between_the_least_and_the_plans(
    situation: PoolSituation,
) -> None:
    found, awake, terms = decide(situation), {one.queue for one in situation.residents}, situation.terms
    if any(one.tokens and name not in awake | situation.unfit for name, one in situation.waiting.items()):
        assert len(awake) == terms.awake or found.comes is not None
    most = max([60.0, *situation.switch_seconds.values()]) / terms.share_lost
    assert terms.least_quantum_seconds <= found.quantum_seconds <= max(terms.least_quantum_seconds, most)


@few
@given(situations(), seconds)
def test_who_stays_after_a_long_stay_stays_after_a_shorter_one(situation: PoolSituation, less: float) -> None:
    if decide(situation).comes is None:
        shorter = [
            dataclasses.replace(one, awake_seconds=max(0.0, one.awake_seconds - less)) for one in situation.residents
        ]
        assert decide(dataclasses.replace(situation, residents=tuple(shorter))).comes is None


@settings(deadline=None, max_examples=20)
@given(st.dictionaries(st.sampled_from(letters), st.tuples(st.floats(1, 600), st.sampled_from(LANES)), min_size=2))
def test_without_arrivals_all_work_ends_with_no_more_switches_than_least_quanta(
    backlog: dict[str, tuple[float, Lane]],
) -> None:
    left = {name: amount for name, (amount, _) in backlog.items()}
    total, now, switches, lost = sum(left.values()), 0.0, 0, 0.0
    awake: str | None = None
    ready, away = 0.0, dict.fromkeys(left, 0.0)
    while any(left.values()):
        waiting = {
            name: work(seconds, lane=backlog[name][1], waited=0.0 if name == awake else now - away[name])
            for name, seconds in left.items()
            if seconds
        }
        resident = () if awake is None else (Resident(awake, now - ready, 0.0 if left[awake] else 99.0),)
        found = decide(pool(waiting, *resident, lost=lost))
        if found.comes is not None:
            if awake is not None:
                away[awake] = now
            now, awake, switches, lost = now + COST, found.comes, switches + 1, lost + COST
            ready = now
            continue
        assert awake is not None
        step = 5.0
        now, left[awake] = now + step, max(0.0, left[awake] - step)
        if left[awake] < 0.01:
            left[awake] = 0.0
    assert switches <= len(left) + total / PoolTerms().least_quantum_seconds


@pytest.mark.parametrize("count", [1, 15])
def test_a_decision_names_what_was_weighed(count: int) -> None:
    waiting = {f"v{number}": work(10.0 * (number + 1)) for number in range(count)}
    found = decide(pool(waiting, Resident("r", 5, 5)))
    assert found.scores == {name: pytest.approx(float(n + 1)) for n, name in enumerate(waiting)}
