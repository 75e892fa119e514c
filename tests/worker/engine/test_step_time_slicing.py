"""Less urgent lanes stand still beside more urgent ones, for their part of the time, and nobody else does."""

from __future__ import annotations

from collections import Counter

import pytest

from penstock.domain.work.rank import Rank
from penstock_worker.engine.launch_spec import BadLaunch
from penstock_worker.engine.vllm import step_time_slicing

CALL, URGENT, LINE, FLEX = (rank.priority() for rank in (Rank.REALTIME, Rank.PRIORITY, Rank.STANDARD, Rank.FLEX))
AHEAD = Rank.STANDARD.priority(ahead=True)


class Steps:
    """An engine whose steps take as long as they are told, by the priorities of those who take part."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: dict[int, float]) -> None:
        self.now, self.cost, self.spent = 0.0, cost, Counter[int]()
        monkeypatch.setattr(step_time_slicing.time, "monotonic", lambda: self.now)
        self.turns = step_time_slicing.StepTimeSlicing(8)

    def run(self, seconds: float, *running: int, under_way: int = 2) -> dict[int, float]:
        """Which part of the time each priority takes part in; so many steps are made before the first one ends."""
        before, began, made = Counter(self.spent), self.now, list[tuple[object, list[int]]]()
        while self.now - began < seconds:
            last = self.turns.last(running)
            made.append((object(), [priority for priority in running if priority <= last]))
            self.turns.made(made[-1][0])
            if len(made) == under_way:
                step, there = made.pop(0)
                took = sum(self.cost[priority] for priority in there)
                self.now += took
                self.spent.update(dict.fromkeys(there, took))
                self.turns.ended(step)
        for step, _ in made:
            self.turns.ended(step)
        return {one: (self.spent[one] - before[one]) / (self.now - began) for one in running}


@pytest.mark.parametrize("under_way", [1, 2, 3])
def test_less_urgent_lanes_get_an_eighth_of_the_time_whatever_their_steps_cost(
    monkeypatch: pytest.MonkeyPatch, under_way: int
) -> None:
    steps = Steps(monkeypatch, {CALL: 0.001, URGENT: 0.01, LINE: 0.1, FLEX: 0.05})
    part = steps.run(60, URGENT, LINE, FLEX, under_way=under_way)
    assert part == pytest.approx({URGENT: 1, LINE: 0.125, FLEX: 0.125}, abs=0.01)


@pytest.mark.parametrize("under_way", [1, 2])
def test_those_of_a_lane_whom_others_pass_get_half_of_it(monkeypatch: pytest.MonkeyPatch, under_way: int) -> None:
    steps = Steps(monkeypatch, {AHEAD: 0.01, LINE: 0.1, FLEX: 0.1})
    assert steps.run(60, AHEAD, LINE, under_way=under_way)[LINE] == pytest.approx(0.5, abs=0.02)
    both = steps.run(60, AHEAD, LINE, FLEX, under_way=under_way)
    assert both[LINE] == pytest.approx(0.5, abs=0.02)
    assert both[FLEX] == pytest.approx(0.125, abs=0.02)


@pytest.mark.parametrize("crowd", [(FLEX,), (FLEX, FLEX), (LINE,), (10,)])
def test_those_who_are_alone_have_all_of_it(monkeypatch: pytest.MonkeyPatch, crowd: tuple[int, ...]) -> None:
    steps = Steps(monkeypatch, dict.fromkeys(crowd, 0.01))
    assert set(steps.run(1, *crowd).values()) == {1.0}


def test_what_was_before_counts_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(monkeypatch, {URGENT: 0.01, FLEX: 0.01})
    steps.run(100, FLEX)
    assert steps.run(10, URGENT, FLEX)[FLEX] == pytest.approx(0.125, abs=0.01)
    steps.run(100, URGENT)
    assert steps.run(10, URGENT, FLEX)[FLEX] == pytest.approx(0.125, abs=0.01)


def test_one_who_waits_for_room_keeps_nobody_from_making_it() -> None:
    made = step_time_slicing.StepTimeSlicing(8)
    assert made.last([FLEX, FLEX], [URGENT]) >= FLEX
    assert made.last([URGENT, FLEX], [FLEX]) == FLEX - 1
    assert made.last([URGENT], [FLEX]) == FLEX - 1, "who waits behind waits until it is due"


def test_an_operators_word_stands() -> None:
    assert step_time_slicing.environment({}) == {step_time_slicing.VARIABLE: "8"}
    assert step_time_slicing.environment({step_time_slicing.VARIABLE: "0"}) == {step_time_slicing.VARIABLE: "0"}
    for wrong in ("-1", "1001", "often", "2.5"):
        with pytest.raises(BadLaunch, match=f"from 0 to 1000, not '{wrong}'"):
            step_time_slicing.environment({step_time_slicing.VARIABLE: wrong})
