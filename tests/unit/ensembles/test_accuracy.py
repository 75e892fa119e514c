"""Whether combination works: members that are right independently, folded, are right as often as the formula says."""

from __future__ import annotations

import itertools
import json
import math
import random
import re

import pytest

from penstock.domain.ensembles.definition import read
from penstock.service.ensembles.fold import Fold, MemberAnswer

RIGHT = (0.6, 0.65, 0.7, 0.75, 0.8)
LINES = 4_000
_ERRORS = 3.3
"""Standard errors: one of a thousand such ranges misses."""


def log_odds() -> list[float]:
    """The best weights of independent members (Nitzan and Paroush, 1982)."""
    return [round(math.log(p / (1 - p)), 6) for p in RIGHT]


def by_formula(weights: list[float]) -> float:
    """How often the heavier side is right: the sum over all that members may say."""
    total = 0.0
    for said in itertools.product((True, False), repeat=len(RIGHT)):
        if sum(w for w, right in zip(weights, said, strict=True) if right) > sum(weights) / 2:
            total += math.prod(p if right else 1 - p for p, right in zip(RIGHT, said, strict=True))
    return total


def answer(label: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": f"I think.\nAnswer: {label}"}}], "usage": None}).encode()


@pytest.mark.parametrize("weights", [[1.0] * 5, log_odds()], ids=["vote", "weighted vote"])
def test_a_vote_of_independent_members_is_right_as_often_as_the_formula_says(weights: list[float]) -> None:
    members = [{"model": f"m{place}", "weight": weight} for place, weight in enumerate(weights)]
    fold = Fold(read({"name": "panel", "kind": "vote", "members": members, "extract": {"regex": "Answer: (.+)"}}), 1)
    chance = random.Random(20)
    answers = {label: answer(label) for label in ("yes", "no")}
    right = 0
    for _ in range(LINES):
        truth, lie = chance.sample(("yes", "no"), 2)
        said = {place: MemberAnswer("answered", answers[truth if chance.random() < p else lie])
                for place, p in enumerate(RIGHT)}  # fmt: skip
        made = fold.fold(said).body
        assert made is not None
        right += json.loads(made)["choices"][0]["message"]["content"].endswith(truth)
    expected = by_formula(weights)
    assert abs(right / LINES - expected) < _ERRORS * math.sqrt(expected * (1 - expected) / LINES)
    assert expected > max(RIGHT), "together they know more than the best of them"


def test_weights_by_log_odds_are_right_more_often_than_equal_ones() -> None:
    assert by_formula(log_odds()) > by_formula([1.0] * 5)


_JUDGED = 1_000
_GOOD_JUDGE = 0.9


def test_the_best_of_independent_members_is_right_as_often_as_its_judge_finds_a_right_one() -> None:
    members = [{"model": f"m{place}"} for place in range(len(RIGHT))]
    fold = Fold(read({"name": "best", "kind": "best_of", "members": members, "judge": {"model": "big"}}), 1)
    chance, request = random.Random(20), b'{"messages":[{"role":"user","content":"Which is it?"}]}'
    answers = {label: answer(label) for label in ("yes", "no")}
    right = 0
    for _ in range(_JUDGED):
        truth, lie = chance.sample(("yes", "no"), 2)
        said = {place: MemberAnswer("answered", answers[truth if chance.random() < p else lie])
                for place, p in enumerate(RIGHT)}  # fmt: skip
        question = json.loads(fold.question("/v1/chat/completions", request, said))["messages"][0]["content"]
        numbers = {label: number for number, label in re.findall(r"Answer (\d+):\nI think.\nAnswer: (\w+)", question)}
        named = numbers.get(truth if chance.random() < _GOOD_JUDGE else lie) or next(iter(numbers.values()))
        choice = json.dumps({"choices": [{"message": {"content": f"It is answer {named}."}}]}).encode()
        made = fold.fold(said | {len(RIGHT): MemberAnswer("answered", choice)}).body
        assert made is not None
        right += json.loads(made)["choices"][0]["message"]["content"].endswith(truth)
    every, none = math.prod(RIGHT), math.prod(1 - p for p in RIGHT)
    expected = every + _GOOD_JUDGE * (1 - every - none)
    assert abs(right / _JUDGED - expected) < _ERRORS * math.sqrt(expected * (1 - expected) / _JUDGED)
    assert expected > by_formula(log_odds()), "a good judge knows more than most of the members"
