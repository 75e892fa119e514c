"""Routing: bounded load, keys that stay where they are, one's own region first; and breakers."""

from __future__ import annotations

from random import Random
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.calls import affinity, breaker
from penstock.domain.calls.breaker import CLOSED, Breaker
from penstock.domain.calls.ingress import Ingress, Load
from penstock.domain.calls.routing import calls, choose, slots, within_share


def ingress(
    number: int, calls: int = 0, slots: int = 8, region: str = "", open: bool = True, shared: bool = False
) -> Ingress:
    load = Load(open=open, calls=calls, lines=0, budget=slots, reason="", tokens_per_second=0.0)
    return Ingress(UUID(int=number), "m", ("m",), f"http://ingress-{number}", region, slots, load, shared=shared)


ingresses = st.lists(
    st.builds(
        ingress,
        st.integers(1, 50),
        calls=st.integers(0, 30),
        slots=st.integers(0, 20),
        region=st.sampled_from(["", "near"]),
        open=st.booleans(),
        shared=st.booleans(),
    ),
    unique_by=lambda one: one.worker,
    max_size=12,
)
keys = st.none() | st.binary(min_size=1, max_size=16)


@given(ingresses, keys, st.sets(st.integers(1, 50).map(lambda n: UUID(int=n))), st.randoms(use_true_random=False))
def test_a_call_goes_to_an_open_door_if_there_is_one_that_was_not_asked(
    there: list[Ingress], key: bytes | None, excluded: set[UUID], chance: Random
) -> None:
    chosen = choose(there, key, {}, "near", excluded, chance)
    left = [one for one in there if one.load.open and one.worker not in excluded]
    assert (chosen is None) == (not left)
    assert chosen is None or chosen in left


@given(ingresses, keys, st.randoms(use_true_random=False))
def test_nobody_waits_while_a_worker_has_room_and_ones_own_region_goes_first(
    there: list[Ingress], key: bytes | None, chance: Random
) -> None:
    chosen = choose(there, key, {}, "near", (), chance)
    roomy = [one for one in there if one.load.open and calls(one, {}) < slots(one)]
    if roomy:
        assert chosen in roomy
        if any(one.region == "near" for one in roomy):
            assert chosen.region == "near"


@given(keys, st.randoms(use_true_random=False))
def test_a_worker_that_is_dedicated_to_its_version_goes_before_a_member_of_a_shared_pool_while_it_has_room(
    key: bytes | None, chance: Random
) -> None:
    dedicated, member = ingress(1, calls=7), ingress(2, shared=True)
    assert choose([dedicated, member], key, {}, "", (), chance) is dedicated
    assert choose([dedicated, member], key, {dedicated.worker: 1}, "", (), chance) is member
    assert choose([dedicated, member], key, {}, "", {dedicated.worker}, chance) is member


@given(
    st.lists(st.integers(1, 16), min_size=1, max_size=8),
    st.lists(st.binary(min_size=1, max_size=1), max_size=200),
    st.randoms(use_true_random=False),
)
def test_no_worker_gets_more_than_its_bounded_share_however_keys_fall(
    sizes: list[int], coming: list[bytes], chance: Random
) -> None:
    there = [ingress(number, slots=size) for number, size in enumerate(sizes)]
    mine = dict.fromkeys((one.worker for one in there), 0)
    for key in coming:
        chosen = choose(there, key, mine, "", (), chance)
        assert chosen is not None
        roomy = [one for one in there if calls(one, mine) < slots(one)] or there
        assert chosen in within_share(roomy, mine)
        mine[chosen.worker] += 1


@given(st.integers(2, 12), st.lists(st.binary(min_size=1, max_size=8), unique=True, min_size=1, max_size=40), st.data())
def test_a_worker_that_leaves_moves_its_own_keys_only(count: int, held: list[bytes], data: st.DataObject) -> None:
    there = [ingress(number) for number in range(count)]
    before = {key: choose(there, key, {}, "", (), Random(0)) for key in held}
    gone = data.draw(st.sampled_from(there))
    after = {key: choose([one for one in there if one is not gone], key, {}, "", (), Random(0)) for key in held}
    assert all(after[key] == before[key] for key in held if before[key] is not gone)


def test_keys_spread_over_all_workers() -> None:
    there = [ingress(number) for number in range(8)]
    found = [choose(there, str(n).encode(), {}, "", (), Random(0)) for n in range(800)]
    assert all(50 < found.count(one) < 160 for one in there)


def test_without_a_key_the_less_loaded_of_two_is_taken() -> None:
    there = [ingress(1, calls=6), ingress(2, calls=1)]
    assert {choose(there, None, {}, "", (), Random(n)) for n in range(20)} == {there[1]}
    corrected = {there[1].worker: 6}
    assert {choose(there, None, corrected, "", (), Random(n)) for n in range(20)} == {there[0]}


def test_a_session_goes_before_a_user_and_a_user_before_a_prompt() -> None:
    assert affinity.key("t", "m", None, None, b"") is None
    session = affinity.key("t", "m", "s", "u", b"prompt")
    assert session == affinity.key("t", "m", "s", "other", b"other")
    assert affinity.key("t", "m", None, "u", b"prompt") == affinity.key("t", "m", None, "u", b"other")
    same = [affinity.key(*at, "x", None, b"") for at in (("t", "m"), ("u", "m"), ("t", "n"))]
    kinds = [affinity.key("t", "m", None, "x", b""), affinity.key("t", "m", None, None, b"x")]
    assert len({*same, *kinds}) == 5, "another tenant's, another model's and another kind of key are other keys"


def failed(times: int, now: float, state: Breaker = CLOSED) -> Breaker:
    """So many failures one after the other, the last at this moment."""
    for _ in range(times):
        state = state.failed(now, now)
    return state


def test_a_breaker_opens_after_three_failures_in_a_row_and_lets_one_call_through_after_a_pause() -> None:
    assert failed(2, 0.0).allows(0.0)
    opened = failed(3, 0.0)
    assert not opened.allows(4.9)
    assert opened.allows(5.0)
    tried = opened.tried(5.0)
    assert not tried.allows(5.0)
    assert tried.allows(10.0), "a try of which nothing was heard does not hold it open forever"


def test_each_failed_try_doubles_the_pause_up_to_a_minute() -> None:
    state, now, pauses = failed(3, 0.0), 0.0, []
    for _ in range(6):
        now = state.until
        state = state.tried(now).failed(now, now)
        pauses.append(state.until - now)
    assert pauses == [10, 20, 40, 60, 60, 60]


def test_late_news_of_calls_that_went_there_before_it_opened_changes_nothing() -> None:
    opened = failed(3, 0.0)
    assert failed(20, 0.1, opened) == opened


def test_a_thousand_calls_that_fail_together_are_one_failure() -> None:
    state = CLOSED
    for n in range(1_000):
        state = state.failed(0.0, 1.0 + n / 1_000)
    assert state.failures == 1
    assert state.allows(2.0)
    state = state.failed(2.0, 3.0).failed(3.0, 4.0)
    assert not state.allows(4.0), "three that began each after the one before had failed"


@given(st.lists(st.tuples(st.sampled_from(["failed", "tried"]), st.floats(0, 30)), max_size=60))
def test_a_breaker_is_never_open_for_longer_than_its_longest_pause(events: list[tuple[str, float]]) -> None:
    state, now = CLOSED, 0.0
    for event, later in events:
        now += later
        if event == "failed":
            state = state.failed(now, now)
        elif state.allows(now):
            state = state.tried(now)
        assert state.allows(now + breaker.LONGEST_PAUSE_SECONDS)
