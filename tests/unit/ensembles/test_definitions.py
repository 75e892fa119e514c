"""Definitions of the kinds that gather: what each may say, and what is refused, with its place."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import pytest

from penstock.domain.api_errors import BadRequest
from penstock.domain.ensembles.definition import MOST_LABELS, PROMPTS, read
from penstock.domain.ensembles.ensemble import Accept, EnsembleKind, Extract, Normalise, Tie, chosen

BASE: dict[str, Any] = {"name": "panel", "members": [{"model": "small"}, {"model": "small"}, {"model": "big@stable"}]}
VOTE = BASE | {"kind": "vote"}
FALLBACK = BASE | {"kind": "fallback"}
TIED = VOTE | {"tie": "judge", "judge": {"model": "big"}}
CASCADE = BASE | {"kind": "cascade", "accept": {"regex": "^Yes"}}
LABELS: dict[str, Any] = {"type": "object", "properties": {"label": {"enum": ["yes", "no"]}, "why": {"type": "string"}}}


def test_what_is_left_out_of_a_vote_has_a_default() -> None:
    found = read(VOTE)
    assert [one.label for one in found.members] == ["small", "small#2", "big@stable"]
    assert ([one.weight for one in found.members], found.tie, found.min_responses) == ([1, 1, 1], Tie.HEAVIEST, 1)
    assert (found.extract, found.fails_with_member, found.timeout_seconds) == (Extract(), False, 300)
    assert (found.member("small#2"), found.patterns, found.reads_logprobs) == (found.members[1], {}, False)


def test_a_vote_says_how_votes_are_read_and_what_they_weigh() -> None:
    members = [{"model": "a", "weight": 0.1}, {"model": "b", "weight": 0.2}, {"model": "c", "weight": 0.3}]
    written = VOTE | {
        "members": members, "extract": {"regex": "A: (.+)", "normalise": "lower_trim"}, "tie": "first",
        "min_responses": 2, "on_error": "fail", "timeout_seconds": 0.5,
    }  # fmt: skip
    found = read(written)
    assert found.members[0].weight + found.members[1].weight == found.members[2].weight == Fraction(3, 10)
    assert found.extract == Extract(regex="A: (.+)", normalise=Normalise.LOWER_TRIM)
    assert (found.tie, found.min_responses, found.fails_with_member) == (Tie.FIRST, 2, True)
    assert (found.timeout_seconds, found.patterns) == (0.5, {"extract.regex": "A: (.+)"})


def test_a_judge_of_ties_is_asked_behind_all_members_and_money_is_counted_in_picounits() -> None:
    found = read(TIED | {"max_cost": 0.02})
    assert found.judge
    assert ([one.label for one in found.asked], found.first) == (["small", "small#2", "big@stable", "judge"], (0, 1, 2))
    asked = chosen(1, 1, found, found.asked[-1])
    assert (asked.place, asked.later, asked.params) == (3, True, {"temperature": 0, "max_tokens": 1_024})
    assert (found.judge.prompt, found.max_cost) == (PROMPTS[EnsembleKind.BEST_OF], 2 * 10**10)
    assert [read(one | {"max_cost": 1e-12}).max_cost for one in (FALLBACK, CASCADE)] == [1, 1]
    assert (read(VOTE).max_cost, read(VOTE).judge) == (None, None)


def test_a_schemas_enum_says_where_the_label_stands_and_which_there_are() -> None:
    def extract(schema: Any) -> Extract:
        return read(VOTE | {"extract": {"json_schema": schema}}).extract

    assert extract(LABELS) == Extract(json="/label", labels=("yes", "no"))
    assert extract({"enum": ["yes", "no"]}) == Extract(labels=("yes", "no"))
    assert extract({"properties": {"a/b~c": {"enum": ["x", "y"]}}}).json == "/a~1b~0c"


def test_fallback_and_cascade_take_their_members_in_order() -> None:
    assert read(FALLBACK | {"timeout_seconds": 60}).timeout_seconds == 60
    found = read(CASCADE | {"accept": {"mean_logprob_over": -0.4, "json_schema": LABELS}})
    assert found.accept == Accept(mean_logprob_over=-0.4, json_schema=LABELS)
    assert found.reads_logprobs
    member = found.members[1]
    assert chosen(1, 2, found, member).params == {"logprobs": True}
    assert chosen(1, 2, read(CASCADE), member).params == {}
    assert chosen(1, 2, found, member).head == {
        "ensemble": "panel", "version": "v2", "kind": "cascade", "winner": "small#2",
    }  # fmt: skip
    assert [kind for kind in EnsembleKind if not kind.gathers] == [EnsembleKind.ROUTE]


def test_only_a_later_member_of_a_kind_in_turn_waits_to_be_asked() -> None:
    rules = [{"when": {"tools": True}, "use": "a"}]
    route = {"name": "r", "kind": "route", "members": [{"model": "a"}, {"model": "b"}], "rules": rules, "default": "b"}
    for written, later in ((route, [False, False]), (VOTE, [False] * 3), (FALLBACK, [False, True, True])):
        found = read(written)
        assert [chosen(1, 1, found, one).later for one in found.members] == later
        assert [chosen(1, 1, found, one).place for one in found.members] == list(range(len(later)))


@pytest.mark.parametrize(
    ("written", "param"),
    [
        (VOTE | {"rules": []}, "rules"),
        (VOTE | {"default": "small"}, "default"),
        (VOTE | {"accept": {"regex": "x"}}, "accept"),
        (FALLBACK | {"on_error": "skip"}, "on_error"),
        (FALLBACK | {"extract": {}}, "extract"),
        (FALLBACK | {"min_responses": 1}, "min_responses"),
        (CASCADE | {"tie": "first"}, "tie"),
        (CASCADE | {"extract": {}}, "extract"),
        (VOTE | {"judge": {"model": "big"}}, "judge"),
        (VOTE | {"max_cost": 1}, "max_cost"),
        (VOTE | {"tie": "first", "judge": {"model": "big"}}, "judge"),
        (VOTE | {"kind": "route", "default": "small", "max_cost": 1}, "max_cost"),
        (VOTE | {"extract": {"xpath": "/a"}}, "extract.xpath"),
        (CASCADE | {"accept": {"agreement": 0.5}}, "accept.agreement"),
        *(({**one, "members": [{"model": "a", "weight": 1}, {"model": "b"}]}, "members[0].weight")
          for one in (FALLBACK, CASCADE)),
        (VOTE | {"members": [{"model": "a", "label": "x"}, {"model": "b"}]}, "members[0].label"),
    ],
)  # fmt: skip
def test_a_field_that_is_another_kinds_or_none_is_unknown(written: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(written)
    assert (refused.value.code, refused.value.param) == ("unknown_parameter", param)


def weighing(weight: Any) -> dict[str, Any]:
    return VOTE | {"members": [{"model": "a"}, {"model": "b", "weight": weight}]}


@pytest.mark.parametrize(
    ("written", "param", "words"),
    [
        *((weighing(weight), "members[1].weight", "above 0 and at most 1,000,000")
          for weight in (0, -1, -0.0, math.nan, math.inf, 1e7, 10**400, True, "2")),
        *((one | {"members": [{"model": "a"}]}, "members", "2 to 20") for one in (VOTE, FALLBACK, CASCADE)),
        (VOTE | {"members": [{"model": "a"}] * 21}, "members", "2 to 20"),
        (VOTE | {"members": [{"model": "a#2"}, {"model": "a"}, {"model": "a"}]}, "members[2].model", "called 'a#2'"),
        (VOTE | {"members": [{"model": "a"}, {"model": "panel"}]}, "members[1].model", "its own member"),
        (CASCADE | {"members": [{"model": "a", "params": {"logprobs": False}}, {"model": "b"}]},
         "members[0].params.logprobs", "can't set 'logprobs'"),
        (VOTE | {"extract": "regex"}, "extract", "must be an object"),
        (VOTE | {"extract": {"regex": "a", "json": "/b"}}, "extract.json", "not by regex and json"),
        (VOTE | {"extract": {"regex": ""}}, "extract.regex", "1 to 1000"),
        (VOTE | {"extract": {"regex": "a" * 1_001}}, "extract.regex", "1 to 1000"),
        (VOTE | {"extract": {"regex": ["a"]}}, "extract.regex", "is a text"),
        (VOTE | {"extract": {"normalise": "upper"}}, "extract.normalise", "one of trim, lower_trim"),
        (VOTE | {"extract": {"normalise": ["trim"]}}, "extract.normalise", "one of trim, lower_trim"),
        *((VOTE | {"extract": {"json": pointer}}, "extract.json", "A JSON pointer is empty or begins with '/'")
          for pointer in ("label", "#/label", "/a~2", "/a~", "/" + "a" * 200, 7)),
        *((VOTE | {"extract": {"json_schema": schema}}, "extract.json_schema", "needs an 'enum'")
          for schema in (True, {}, [], {"properties": {"a": {}}}, {"properties": 7}, {"properties": {"a": 7}},
                         {"properties": {"a": {"enum": ["x", "y"]}, "b": {"enum": ["x", "y"]}}})),
        *((VOTE | {"extract": {"json_schema": {"enum": values}}}, "extract.json_schema.enum", words)
          for values, words in ((7, "2 to 200"), (["x"], "2 to 200"), (["x"] * (MOST_LABELS + 1), "2 to 200"),
                                (["x", 7], "are texts"), (["x", " "], "are texts"), (["x", "y" * 201], "are texts"),
                                (["x", "x"], "Two labels"), (["x", " x"], "Two labels"))),
        (VOTE | {"extract": {"json_schema": {"enum": ["Yes", "yes"]}, "normalise": "lower_trim"}},
         "extract.json_schema.enum", "normalised (lower_trim)"),
        (VOTE | {"extract": {"json_schema": {"properties": {"a": {"enum": []}}}}},
         "extract.json_schema.properties.a.enum", "2 to 200"),
        *((VOTE | {"tie": tie}, "tie", "one of heaviest, first, judge") for tie in ("dice", "", 7)),
        *((VOTE | {"min_responses": least}, "min_responses", "from 1 to 3")
          for least in (0, 4, -1, 1.5, True, "2")),
        *((VOTE | {"on_error": what}, "on_error", "one of skip, fail") for what in ("ignore", ["skip"])),
        *((one | {"timeout_seconds": seconds}, "timeout_seconds", "above 0 and at most 86,400")
          for one in (VOTE, FALLBACK, CASCADE) for seconds in (0, -1, 86_401, math.nan, math.inf, "60")),
        (VOTE | {"tie": "judge"}, "judge", "A vote with 'tie: judge' needs a judge"),
        (VOTE | {"tie": "judge", "judge": {"model": "panel"}}, "judge.model", "its own judge"),
        (VOTE | {"tie": "judge", "judge": {"model": "big", "prompt": "Which?"}}, "judge.prompt", "has '{answers}'"),
        *((one | {"max_cost": cost}, "max_cost", "above 0 and at most 1,000,000")
          for one in (TIED, FALLBACK, CASCADE)
          for cost in (0, -1, -0.0, math.nan, math.inf, 1e7, 10**400, True, "2")),
        (CASCADE | {"max_cost": 1e-13}, "max_cost", "at least 1e-12"),
        (BASE | {"kind": "combine", "method": "mean", "max_cost": 1}, "max_cost", "nobody later"),
        (BASE | {"kind": "cascade"}, "accept", "when an answer is good enough"),
        (CASCADE | {"accept": {}}, "accept", "when an answer is good enough"),
        (CASCADE | {"accept": None}, "accept", "when an answer is good enough"),
        (CASCADE | {"accept": []}, "accept", "must be an object"),
        *((CASCADE | {"accept": {"mean_logprob_over": value}}, "accept.mean_logprob_over", "a number of 0 at most")
          for value in (0.1, math.nan, -math.inf, "-1", True)),
        *((CASCADE | {"accept": {"json_schema": value}}, "accept.json_schema", "is a JSON schema")
          for value in ("{}", [], True)),
        (CASCADE | {"accept": {"regex": ""}}, "accept.regex", "1 to 1000"),
    ],
)  # fmt: skip
def test_what_can_be_no_ensemble_is_refused_with_the_place_and_the_reason(
    written: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        read(written)
    assert (refused.value.param, words in refused.value.message) == (param, True), refused.value.message


def test_a_definition_is_the_same_after_a_way_through_json() -> None:
    for written in (VOTE | {"extract": {"json_schema": LABELS}}, FALLBACK, CASCADE, weighing(1e-300)):
        assert read(json.loads(json.dumps(written))) == read(written)


def test_what_the_page_says_of_fields_that_are_left_out_may_be_sent_too() -> None:
    nothing = {"regex": None, "json": None, "json_schema": None, "normalise": "trim"}
    assert read(VOTE | {"extract": nothing, "tie": "heaviest", "min_responses": 1, "on_error": "skip"}) == read(VOTE)
    assert read(CASCADE | {"accept": {"regex": "^Yes", "mean_logprob_over": None}, "timeout_seconds": None}) == read(
        CASCADE
    )
    assert read(VOTE | {"rules": None, "accept": None, "default": None}) == read(VOTE)
