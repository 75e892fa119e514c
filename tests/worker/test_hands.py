"""Hands: the limits nest at every moment, an urgent slice always finds one, and what is owed comes due."""

from __future__ import annotations

import threading
from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.domain.lane import LANES, MOST_HANDS, Lane
from penstock_worker.hands import Hands

lanes = st.sampled_from(LANES)


def taken(hands: Hands, *wanted: Lane) -> list[bool]:
    return [hands.take(lane) for lane in wanted]


def test_flex_holds_two_hands_flex_and_standard_three_and_all_four() -> None:
    hands = Hands()
    assert taken(hands, Lane.FLEX, Lane.FLEX, Lane.FLEX) == [True, True, False]
    assert taken(hands, Lane.STANDARD, Lane.STANDARD) == [True, False]
    assert taken(hands, Lane.PRIORITY, Lane.PRIORITY) == [True, False]
    assert hands.held == {Lane.FLEX: 2, Lane.STANDARD: 1, Lane.PRIORITY: 1}


def test_priority_alone_may_hold_all_four_and_then_nobody_else_any() -> None:
    hands = Hands()
    assert taken(hands, *[Lane.PRIORITY] * 5) == [True] * 4 + [False]
    assert taken(hands, Lane.STANDARD, Lane.FLEX) == [False, False]


def test_a_hand_that_turned_to_a_more_urgent_slice_is_free_for_its_first_lane_again() -> None:
    hands = Hands()
    assert taken(hands, Lane.FLEX, Lane.FLEX, Lane.FLEX) == [True, True, False]
    hands.turn(Lane.FLEX, Lane.PRIORITY)
    assert taken(hands, Lane.FLEX) == [True]


def test_an_owed_hint_comes_due_once_and_only_when_its_lane_has_a_hand() -> None:
    hands = Hands()
    assert taken(hands, Lane.FLEX, Lane.FLEX) == [True, True]
    hands.owe(Lane.FLEX)
    assert hands.due() == []
    hands.give(Lane.FLEX)
    assert hands.due() == [Lane.FLEX]
    assert hands.due() == []


def test_owed_hints_come_due_most_urgent_lane_first_and_one_a_lane_at_a_time() -> None:
    hands = Hands()
    for lane in (Lane.FLEX, Lane.STANDARD, Lane.PRIORITY, Lane.FLEX):
        hands.owe(lane)
    assert hands.due() == [Lane.PRIORITY, Lane.STANDARD, Lane.FLEX]
    assert hands.due() == [Lane.FLEX]
    assert hands.due() == []


def test_threads_that_take_at_once_never_hold_more_than_the_limits() -> None:
    hands, start, got = Hands(), threading.Barrier(24), Counter[Lane]()
    lock = threading.Lock()

    def grab(lane: Lane) -> None:
        start.wait()
        if hands.take(lane):
            with lock:
                got[lane] += 1

    threads = [threading.Thread(target=grab, args=(lane,)) for lane in LANES for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == Counter(hands.held)
    assert got.total() == 4, "with eight takers a lane no hand stays free"
    assert got[Lane.FLEX] <= 2
    assert got[Lane.FLEX] + got[Lane.STANDARD] <= 3


class Interleavings(RuleBasedStateMachine):
    """Any order of taking, turning, giving and owing."""

    def __init__(self) -> None:
        super().__init__()
        self.hands = Hands()
        self.held: list[Lane] = []
        self.owed: Counter[Lane] = Counter()

    def count(self, *lanes: Lane) -> int:
        return sum(lane in lanes for lane in self.held)

    def fits(self, lane: Lane) -> bool:
        """The limits as the design words them."""
        after = [*self.held, lane]
        flex, standard = after.count(Lane.FLEX), after.count(Lane.STANDARD)
        return (
            len(after) <= 4 and (lane is Lane.PRIORITY or flex + standard <= 3) and (lane is not Lane.FLEX or flex <= 2)
        )

    @rule(lane=lanes)
    def take(self, lane: Lane) -> None:
        fits = self.fits(lane)
        assert self.hands.take(lane) is fits
        if fits:
            self.held.append(lane)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def turn(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.held) - 1))
        old = self.held[place]
        new = data.draw(st.sampled_from(LANES[: old.rank + 1]))
        self.hands.turn(old, new)
        self.held[place] = new

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        self.hands.give(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @rule(lane=lanes)
    def owe(self, lane: Lane) -> None:
        self.hands.owe(lane)
        self.owed[lane] = min(self.owed[lane] + 1, MOST_HANDS[lane])  # the debt is bounded, however long it lasts

    @rule()
    def due(self) -> None:
        wanted = [lane for lane in LANES if self.owed[lane] and self.fits(lane)]
        assert self.hands.due() == wanted
        self.owed.subtract(wanted)

    @invariant()
    def the_limits_nest(self) -> None:
        assert self.count(Lane.FLEX) <= 2
        assert self.count(Lane.FLEX, Lane.STANDARD) <= 3
        assert len(self.held) <= 4
        assert {lane: n for lane, n in self.hands.held.items() if n} == dict(Counter(self.held))

    @invariant()
    def less_urgent_lanes_always_leave_a_hand(self) -> None:
        if not self.count(Lane.PRIORITY):
            assert self.fits(Lane.PRIORITY)
            if not self.count(Lane.STANDARD):
                assert self.fits(Lane.STANDARD)

    def teardown(self) -> None:
        """With all hands given back, everything that is owed comes due."""
        while self.held:
            self.hands.give(self.held.pop())
        for _ in range(max(self.owed.values(), default=0)):
            self.due()
        assert not any(self.owed.values())
        assert self.hands.due() == []


TestAnyInterleaving = Interleavings.TestCase
