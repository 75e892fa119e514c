"""Slice slots: the limits nest at every moment, an urgent slice always finds one, and what is owed comes due."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.domain.accounts.account import accounts, tenant_of
from penstock.domain.work.lane import LANES, MOST_RESTING, MOST_SLICE_SLOTS, Lane
from penstock_worker.slices.slice_slots import SliceSlot, SliceSlots

lanes = st.sampled_from(LANES)
owners = st.sampled_from([name for tenant in ("acme", "globex", "initech") for name in accounts(tenant)])
BATCHES, SMALL_JOBS = accounts("acme")


def taken(slice_slots: SliceSlots, *wanted: Lane) -> list[bool]:
    return [slice_slots.take(lane) for lane in wanted]


def held_by(owner: str, *lanes: Lane) -> SliceSlots:
    """Slots of which an account's slices hold these."""
    return add(SliceSlots(), owner, *lanes)


def add(slice_slots: SliceSlots, owner: str, *lanes: Lane) -> SliceSlots:
    """An account's slices take these slots too."""
    for lane in lanes:
        assert slice_slots.take(lane)
        slice_slots.turn(lane, lane, owner)
    return slice_slots


def test_flex_holds_four_slots_flex_and_standard_five_and_all_six() -> None:
    slice_slots = SliceSlots()
    assert taken(slice_slots, *[Lane.FLEX] * 5) == [True] * 4 + [False]
    assert taken(slice_slots, Lane.STANDARD, Lane.STANDARD) == [True, False]
    assert taken(slice_slots, Lane.PRIORITY, Lane.PRIORITY) == [True, False]
    assert slice_slots.held == {Lane.FLEX: 4, Lane.STANDARD: 1, Lane.PRIORITY: 1}


def test_priority_alone_may_hold_all_six_and_then_nobody_else_any() -> None:
    slice_slots = SliceSlots()
    assert taken(slice_slots, *[Lane.PRIORITY] * 7) == [True] * 6 + [False]
    assert taken(slice_slots, Lane.STANDARD, Lane.FLEX) == [False, False]


def test_a_slot_that_turned_to_a_more_urgent_slice_is_free_for_its_first_lane_again() -> None:
    slice_slots = SliceSlots()
    assert taken(slice_slots, *[Lane.FLEX] * 5) == [True] * 4 + [False]
    slice_slots.turn(Lane.FLEX, Lane.PRIORITY, "acme")
    assert taken(slice_slots, Lane.FLEX) == [True]


@pytest.mark.parametrize("owner", [BATCHES, SMALL_JOBS])
def test_an_account_alone_is_full_two_slots_before_its_lane_is(owner: str) -> None:
    alone = frozenset({owner})
    assert held_by(owner, Lane.FLEX).full() == {}
    assert held_by(owner, Lane.FLEX, Lane.FLEX).full() == {Lane.FLEX: alone}
    assert held_by(owner, Lane.FLEX, Lane.STANDARD).full() == {}
    three = held_by(owner, Lane.FLEX, Lane.FLEX, Lane.STANDARD)
    assert three.full() == {Lane.STANDARD: alone, Lane.FLEX: alone}
    four = held_by(owner, *[Lane.PRIORITY] * 4)
    assert four.full() == dict.fromkeys(LANES, alone)


def test_while_a_tenants_batches_are_full_its_small_job_finds_a_slot_and_then_another_tenants() -> None:
    slice_slots = held_by(BATCHES, Lane.FLEX, Lane.FLEX)
    assert slice_slots.full() == {Lane.FLEX: {BATCHES}}
    add(slice_slots, SMALL_JOBS, Lane.FLEX)
    assert slice_slots.full() == {Lane.FLEX: {BATCHES, SMALL_JOBS}}
    add(slice_slots, "globex", Lane.FLEX)
    assert slice_slots.full() == {Lane.FLEX: {BATCHES, SMALL_JOBS}}
    assert not slice_slots.take(Lane.FLEX)


def test_a_hint_that_passed_a_full_account_over_comes_due_once_a_slot_is_given_back() -> None:
    slice_slots = held_by("acme", Lane.FLEX, Lane.FLEX)
    assert slice_slots.take(Lane.FLEX)
    slice_slots.pass_over(Lane.FLEX, slice_slots.full())
    slice_slots.give(Lane.FLEX)
    assert slice_slots.due() == [], "its own slot is free again, and nothing has changed"
    slice_slots.give(Lane.FLEX, "acme")
    assert slice_slots.due() == [Lane.FLEX]
    assert slice_slots.due() == []


def test_a_hint_that_passed_over_whoever_is_not_full_any_more_comes_due_at_once() -> None:
    slice_slots = held_by("acme", Lane.FLEX, Lane.FLEX)
    full = slice_slots.full()
    slice_slots.give(Lane.FLEX, "acme")
    slice_slots.pass_over(Lane.FLEX, full)
    assert slice_slots.due() == [Lane.FLEX]


def test_hints_that_passed_over_come_due_one_for_each_slot_until_a_look_finds_nothing() -> None:
    slice_slots = held_by(BATCHES, Lane.FLEX, Lane.FLEX)
    for _ in range(3):
        slice_slots.pass_over(Lane.FLEX, slice_slots.full())
    assert slice_slots.due() == []
    for _ in range(2):
        slice_slots.give(Lane.FLEX, BATCHES)
        assert (slice_slots.due(), slice_slots.due()) == ([Lane.FLEX], [])
        add(slice_slots, BATCHES, Lane.FLEX)
    slice_slots.forgive(Lane.FLEX, slice_slots.ever_owed)
    slice_slots.give(Lane.FLEX, BATCHES)
    assert slice_slots.due() == []


def test_a_look_that_found_nothing_forgives_what_was_owed_before_it_and_to_no_less_urgent_lane() -> None:
    slice_slots = SliceSlots()
    for lane in (Lane.FLEX, Lane.STANDARD, Lane.STANDARD, Lane.PRIORITY):
        slice_slots.owe(lane)
    before = slice_slots.ever_owed
    slice_slots.owe(Lane.STANDARD)
    slice_slots.forgive(Lane.STANDARD, before)
    assert slice_slots.due() == [Lane.STANDARD, Lane.FLEX], "one came meanwhile, and flex was not looked at"
    assert slice_slots.due() == []


def test_what_is_owed_during_a_look_is_not_forgiven_though_no_more_could_be_owed() -> None:
    slice_slots = SliceSlots()
    for _ in range(MOST_SLICE_SLOTS[Lane.STANDARD]):
        slice_slots.owe(Lane.STANDARD)
    before = slice_slots.ever_owed
    slice_slots.owe(Lane.STANDARD)
    slice_slots.forgive(Lane.STANDARD, before)
    assert (slice_slots.due(), slice_slots.due()) == ([Lane.STANDARD], [])


def test_an_owed_hint_comes_due_once_and_only_when_its_lane_has_a_slot() -> None:
    slice_slots = SliceSlots()
    assert taken(slice_slots, *[Lane.FLEX] * 4) == [True] * 4
    slice_slots.owe(Lane.FLEX)
    assert slice_slots.due() == []
    slice_slots.give(Lane.FLEX)
    assert slice_slots.due() == [Lane.FLEX]
    assert slice_slots.due() == []


def test_owed_hints_come_due_most_urgent_lane_first_and_one_a_lane_at_a_time() -> None:
    slice_slots = SliceSlots()
    for lane in (Lane.FLEX, Lane.STANDARD, Lane.PRIORITY, Lane.FLEX):
        slice_slots.owe(lane)
    assert slice_slots.due() == [Lane.PRIORITY, Lane.STANDARD, Lane.FLEX]
    assert slice_slots.due() == [Lane.FLEX]
    assert slice_slots.due() == []


def test_threads_that_take_at_once_never_hold_more_than_the_limits() -> None:
    slice_slots, start, got = SliceSlots(), threading.Barrier(24), Counter[Lane]()
    lock = threading.Lock()

    def grab(lane: Lane) -> None:
        start.wait()
        if slice_slots.take(lane):
            with lock:
                got[lane] += 1

    threads = [threading.Thread(target=grab, args=(lane,)) for lane in LANES for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == Counter(slice_slots.held)
    assert got.total() == 6, "with eight takers a lane no slot stays free"
    assert got[Lane.FLEX] <= 4
    assert got[Lane.FLEX] + got[Lane.STANDARD] <= 5


def test_a_slice_whose_lines_are_all_fed_sets_its_slot_free_once_and_leaves_without_giving_it_again() -> None:
    slice_slots = held_by("acme", Lane.FLEX, Lane.FLEX)
    place = SliceSlot(slice_slots, Lane.FLEX, "acme")
    assert [place.rest(), place.rest()] == [True, False]
    assert slice_slots.held[Lane.FLEX] == 1
    place.leave()
    assert slice_slots.held[Lane.FLEX] == 1


def test_a_slice_that_was_never_fed_gives_its_slot_back_when_it_leaves() -> None:
    slice_slots = held_by("acme", Lane.FLEX, Lane.FLEX)
    SliceSlot(slice_slots, Lane.FLEX, "acme").leave()
    assert slice_slots.held[Lane.FLEX] == 1


def test_only_so_many_slices_rest_at_once_and_the_next_does_when_one_is_over() -> None:
    slice_slots, places = SliceSlots(), list[SliceSlot]()
    for _ in range(MOST_RESTING + 1):
        assert slice_slots.take(Lane.STANDARD)
        slice_slots.turn(Lane.STANDARD, Lane.STANDARD, "acme")
        places.append(SliceSlot(slice_slots, Lane.STANDARD, "acme"))
        assert places[-1].rest() is (len(places) <= MOST_RESTING)
    places[0].leave()
    assert places[-1].rest()
    assert slice_slots.held[Lane.STANDARD] == 0


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("rests", [False, True])
@pytest.mark.parametrize("breaks", [False, True])
def test_a_slot_is_given_back_on_every_way_out(turned: bool, rests: bool, breaks: bool) -> None:
    slice_slots = SliceSlots()
    for _ in range(MOST_RESTING + 1):  # so many that a resting slice left behind would be missed
        with suppress(LookupError), slice_slots.slot(Lane.FLEX) as slot:
            assert slot is not None
            if turned:
                slot.turn(Lane.PRIORITY, "acme")
            assert slice_slots.held[Lane.PRIORITY if turned else Lane.FLEX] == 1
            if rests:
                assert slot.rest()
                assert not any(slice_slots.held.values())
            if breaks:
                raise LookupError
        assert not any(slice_slots.held.values())
    assert slice_slots.full() == {}


def test_where_no_slot_is_free_there_is_none_and_none_is_given_back() -> None:
    slice_slots = SliceSlots()
    assert taken(slice_slots, *[Lane.FLEX] * 4) == [True] * 4
    with slice_slots.slot(Lane.FLEX) as slot:
        assert slot is None
    assert slice_slots.held == {Lane.FLEX: 4}


class Interleavings(RuleBasedStateMachine):
    """Any order of taking, claiming, giving, owing and passing over."""

    def __init__(self) -> None:
        super().__init__()
        self.slice_slots = SliceSlots()
        self.held: list[tuple[Lane, str | None]] = []
        self.owed: Counter[Lane] = Counter()
        self.passed: set[Lane] = set()

    def count(self, *lanes: Lane) -> int:
        return sum(lane in lanes for lane, _ in self.held)

    def fits(self, lane: Lane) -> bool:
        """The limits as the design words them."""
        return within([held for held, _ in self.held] + [lane], 4, 5, 6)

    def full(self) -> dict[Lane, set[str]]:
        """Who may not have one more: a tenant's limits are one less, its accounts' two."""
        there = {name for _, owner in self.held if owner for name in accounts(tenant_of(owner))}
        full = {lane: {name for name in there if not self.may_have(name, lane)} for lane in LANES}
        return {lane: who for lane, who in full.items() if who}

    def may_have(self, owner: str, lane: Lane) -> bool:
        of_tenant = self.of(*accounts(tenant_of(owner)))
        return within([*self.of(owner), lane], 2, 3, 4) and within([*of_tenant, lane], 3, 4, 5)

    def of(self, *owners: str) -> list[Lane]:
        return [lane for lane, of in self.held if of in owners]

    @rule(lane=lanes)
    def take(self, lane: Lane) -> None:
        fits = self.fits(lane)
        assert self.slice_slots.take(lane) is fits
        if fits:
            self.held.append((lane, None))

    @precondition(lambda self: any(owner is None for _, owner in self.held))
    @rule(data=st.data(), owner=owners)
    def claim(self, data: st.DataObject, owner: str) -> None:
        """A slot finds a slice of an account that is not full there, or nothing."""
        place = data.draw(st.sampled_from([at for at, (_, of) in enumerate(self.held) if of is None]))
        old, _ = self.held[place]
        new = data.draw(st.sampled_from(LANES[: old.rank + 1]))
        full = self.slice_slots.full()
        if owner in full.get(new, ()):
            self.slice_slots.pass_over(old, full)
            self.passed.add(old)
        else:
            self.slice_slots.turn(old, new, owner)
            self.held[place] = (new, owner)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        self.give_back(data.draw(st.integers(0, len(self.held) - 1)))

    def give_back(self, place: int) -> None:
        lane, owner = self.held.pop(place)
        self.slice_slots.give(lane, *([owner] if owner else []))
        if owner is not None:
            for passed in self.passed:
                self.add(passed)

    @rule(lane=lanes)
    def owe(self, lane: Lane) -> None:
        self.slice_slots.owe(lane)
        self.add(lane)

    def add(self, lane: Lane) -> None:
        """The debt is bounded, however long it lasts."""
        self.owed[lane] = min(self.owed[lane] + 1, MOST_SLICE_SLOTS[lane])

    @rule(lane=lanes, meanwhile=lanes)
    def find_nothing(self, lane: Lane, meanwhile: Lane) -> None:
        """A look that finds nothing though nobody is full, while a hint is owed to a lane."""
        before = self.slice_slots.ever_owed
        self.owe(meanwhile)
        self.slice_slots.forgive(lane, before)
        for looked in LANES[: lane.rank + 1]:
            self.owed[looked] = min(self.owed[looked], 1 if looked is meanwhile else 0)
            self.passed.discard(looked)

    @rule()
    def due(self) -> None:
        wanted = [lane for lane in LANES if self.owed[lane] and self.fits(lane)]
        assert self.slice_slots.due() == wanted
        self.owed.subtract(wanted)

    @invariant()
    def the_limits_nest(self) -> None:
        assert within([lane for lane, _ in self.held], 4, 5, 6)
        assert {lane: n for lane, n in self.slice_slots.held.items() if n} == dict(
            Counter(lane for lane, _ in self.held)
        )

    @invariant()
    def a_tenant_never_holds_the_last_slot_of_a_lane_nor_its_batches_the_last_but_one(self) -> None:
        assert self.slice_slots.full() == self.full()
        for owner in [owner for _, owner in self.held if owner]:
            assert within(self.of(owner), 2, 3, 4)
            assert within(self.of(*accounts(tenant_of(owner))), 3, 4, 5)

    @invariant()
    def less_urgent_lanes_always_leave_a_slot(self) -> None:
        if not self.count(Lane.PRIORITY):
            assert self.fits(Lane.PRIORITY)
            if not self.count(Lane.STANDARD):
                assert self.fits(Lane.STANDARD)

    def teardown(self) -> None:
        """With all slots given back, everything that is owed comes due."""
        while self.held:
            self.give_back(0)
        for _ in range(max(self.owed.values(), default=0)):
            self.due()
        assert not any(self.owed.values())
        assert self.slice_slots.due() == []


def within(lanes: list[Lane], flex: int, standard: int, priority: int) -> bool:
    """At most so many flex, so many flex and standard, so many in all."""
    of_flex, of_standard = lanes.count(Lane.FLEX), lanes.count(Lane.STANDARD)
    return of_flex <= flex and of_flex + of_standard <= standard and len(lanes) <= priority


TestAnyInterleaving = Interleavings.TestCase
