"""Escalation: how much later members are asked, by what was measured or by what is likely."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.domain.ensembles.definition import read
from penstock.domain.ensembles.ensemble import EnsembleDefinition, MemberCounts
from penstock.domain.ensembles.escalation import ALWAYS, NEVER, Reached, rates, reached

VOTE: dict[str, Any] = {"name": "e", "kind": "vote", "members": [{"model": "a"}, {"model": "a"}]}


def definition(kind: str) -> EnsembleDefinition:
    more: dict[str, Any] = {"accept": {"regex": "x"}} if kind == "cascade" else {}
    if kind == "best_of":
        more = {"judge": {"model": "b"}}
    return read({"name": "e", "kind": kind, "members": [{"model": "a"}, {"model": "a"}, {"model": "b"}], **more})


def went(*answered: int) -> dict[str, MemberCounts]:
    """Of each: so many lines, one of them waiting still, and as many calls."""
    names = ("a", "a#2", "b")
    return {name: MemberCounts(one + 1, one, 0, one, 0) for name, one in zip(names, answered, strict=False)}


def test_a_rate_is_what_came_to_a_member_over_what_came_to_the_first() -> None:
    for kind in ("fallback", "cascade"):
        assert rates(definition(kind), went(40, 10, 5)) == {"a": None, "a#2": 0.25, "b": 0.125}
        assert rates(definition(kind), {}) == {"a": None, "a#2": None, "b": None}
        assert rates(definition(kind), went(4, 5)) == {"a": None, "a#2": 1.0, "b": 0.0}, "never more than all"
    assert rates(definition("vote"), went(40, 40, 40)) == {"a": None, "a#2": None, "b": None}


def test_what_nobody_measured_is_what_the_kind_makes_likely() -> None:
    assert reached(definition("vote"), {}) == (ALWAYS, ALWAYS, ALWAYS)
    assert reached(definition("best_of"), {}) == (ALWAYS,) * 4, "the judge, too"
    assert reached(definition("fallback"), {}) == (ALWAYS, NEVER, NEVER)
    assert reached(definition("cascade"), {}) == (ALWAYS, Reached(0, 0.5, 1), Reached(0, 0.25, 1))


def test_a_judge_that_decides_ties_or_may_cost_too_much_is_asked_as_often_as_it_was() -> None:
    tied = read(VOTE | {"tie": "judge", "judge": {"model": "b"}})
    assert reached(tied, {}) == (ALWAYS, ALWAYS, Reached(0, 0.5, 1))
    counts = {"a": MemberCounts(100, 100), "a#2": MemberCounts(100, 100), "judge": MemberCounts(20, 15, 5)}
    assert rates(tied, counts) == {"a": None, "a#2": None, "judge": 0.2}
    judge = reached(tied, counts)[2]
    assert judge.low < judge.expected == 0.2 < judge.high
    best = read(VOTE | {"kind": "best_of", "judge": {"model": "b"}})
    assert (rates(best, counts)["judge"], reached(best, counts)[2]) == (None, ALWAYS)
    capped = read(VOTE | {"kind": "best_of", "judge": {"model": "b"}, "max_cost": 1})
    assert (reached(capped, {})[2], reached(capped, counts)[2]) == (Reached(0, 1, 1), judge)


@pytest.mark.parametrize("kind", ["fallback", "cascade"])
def test_what_was_measured_has_a_range_that_narrows(kind: str) -> None:
    first, few, none = reached(definition(kind), went(10, 2, 0))
    assert (first, few.expected, none.expected, none.low) == (ALWAYS, 0.2, 0.0, 0.0)
    assert few.low == pytest.approx(0.0807, abs=1e-3), "Wilson's interval of 4 in 20"
    assert few.high == pytest.approx(0.4160, abs=1e-3)
    assert none.high > 0.1, "20 requests say little"
    many = reached(definition(kind), went(10_000, 2_000, 0))[1]
    assert few.low < many.low < 0.2 < many.high < few.high
    assert reached(definition(kind), went(5, 5, 5))[2].high == 1.0
