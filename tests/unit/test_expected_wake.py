"""When a version's turn is likely to come, and how people are told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock.domain.pools.expected_wake import Asleep, ExpectedWake, expected_wake
from penstock.domain.pools.situation import PoolSituation, PoolTerms, Resident, Waiting
from penstock.domain.work.lane import Lane

TERMS = PoolTerms(share_lost=0.1, linger_seconds=2.0)
NOW = PoolSituation(
    terms=TERMS,
    residents=(Resident("a", awake_seconds=50.0),),
    waiting={
        "a": Waiting(200_000, {Lane.STANDARD: 60.0}),
        "b": Waiting(1_000, {Lane.STANDARD: 30.0}),
        "c": Waiting(30_000, {Lane.STANDARD: 40.0}),
    },
    tokens_per_second={"a": 1_000.0, "b": 1_000.0, "c": 1_000.0},
    switch_seconds={"a": 10.0, "b": 10.0, "c": 10.0},
)


def seconds(now: PoolSituation, queue: str = "b") -> float:
    found = expected_wake(now, queue)
    assert found is not None
    return found.seconds


def test_whoever_is_awake_has_the_rest_of_its_quantum_and_who_waited_longer_goes_first() -> None:
    assert seconds(NOW, "c") == 50 + 10, "a quantum is 100 s"
    assert seconds(NOW, "b") == 50 + (10 + 30) + 10
    assert expected_wake(NOW, "b") == ExpectedWake(100.0, (("a", 200_000), ("c", 30_000)))


def test_less_work_than_a_quantum_ends_sooner_and_none_after_the_linger() -> None:
    little = {**NOW.waiting, "a": Waiting(5_000)}
    assert seconds(replace(NOW, waiting=little), "c") == 5 + 10
    idle = replace(NOW, waiting={**NOW.waiting, "a": Waiting()}, residents=(Resident("a", 50.0, idle_seconds=1.5),))
    assert seconds(idle, "c") == 0.5 + 10


def test_no_quantum_outlasts_the_bound_of_who_waits() -> None:
    nearly = {**NOW.waiting, "c": Waiting(30_000, {Lane.STANDARD: 3_590.0})}
    assert seconds(replace(NOW, waiting=nearly), "c") == 10 + 10
    called = {**NOW.waiting, "c": Waiting(0, {}, (), oldest_call=55.0)}
    assert seconds(replace(NOW, waiting=called), "c") == 5 + 10


def test_a_free_place_costs_the_switch_alone() -> None:
    alone = {queue: one for queue, one in NOW.waiting.items() if queue != "a"}
    assert seconds(replace(NOW, residents=(), waiting=alone), "c") == 10
    assert seconds(replace(NOW, terms=replace(TERMS, awake=2)), "c") == 10
    assert seconds(replace(NOW, terms=replace(TERMS, awake=2)), "b") == 10 + 30 + 10, "c has the place first"


def test_who_is_pinned_is_never_gone_and_goes_before_everybody() -> None:
    assert expected_wake(replace(NOW, pinned=frozenset({"a"})), "b") is None
    assert expected_wake(replace(NOW, unfit=frozenset({"b"})), "b") is None
    assert seconds(replace(NOW, pinned=frozenset({"b"})), "b") == 60


@pytest.mark.parametrize(
    ("asleep", "sentence"),
    [
        (
            Asleep("qwen-7b", "a", False, expected=ExpectedWake(350.0, (("llama-8b", 2_100_000),))),
            "qwen-7b is asleep: behind 2.1 M tokens of llama-8b on pool a, about 6 min",
        ),
        (
            Asleep("q", "a", False, expected=ExpectedWake(7_300.0, (("l", 42_000), ("m", 9)))),
            "q is asleep: behind 42 k tokens of l and others on pool a, about 2 h",
        ),
        (Asleep("q", "a", False, expected=ExpectedWake(10.0, (("l", 999),))), "999 tokens of l on pool a, about 10 s"),
        (Asleep("q", "a", False, expected=ExpectedWake(60.0, ())), "q is asleep: next on pool a, about 60 s"),
        (Asleep("q", "a", False, True, ExpectedWake(45.0, ())), "q is waking on pool a, about 45 s"),
        (Asleep("q", "a", False), "q is asleep on pool a, and nobody can say when it wakes"),
    ],
)
def test_people_are_told_in_a_sentence(asleep: Asleep, sentence: str) -> None:
    assert asleep.sentence().endswith(sentence)


def test_a_model_that_the_reader_may_not_ask_is_not_named() -> None:
    asleep = Asleep("q", "a", False, expected=ExpectedWake(10.0, (("secret@v2", 999),)))
    assert asleep.sentence(frozenset({"q"})) == "q is asleep: behind 999 tokens of another model on pool a, about 10 s"
    assert "of secret@v2 on" in asleep.sentence(frozenset({"q", "secret"}))
