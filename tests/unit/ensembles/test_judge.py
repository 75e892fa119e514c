"""Judges: what one may be, what it is asked, and what comes of what it says, in a best_of and in a combine."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.api_errors import BadRequest
from penstock.domain.ensembles import verdict
from penstock.domain.ensembles.definition import PROMPTS, READS_CHARS, read
from penstock.domain.ensembles.ensemble import EnsembleDefinition, EnsembleKind, chosen
from penstock.domain.ensembles.verdict import EnsembleVerdict, Heard, judge
from penstock.service.ensembles import judging
from penstock.service.ensembles.fold import QUORUM, Fold, MemberAnswer
from penstock.service.ensembles.hearing import Hearing

FAILED, SAID = Heard(answered=False), Heard(answered=True)
BASE: dict[str, Any] = {"name": "best", "members": [{"model": "a"}, {"model": "a", "weight": 2}, {"model": "b"}]}
BEST = BASE | {"kind": "best_of", "judge": {"model": "big"}}
MIX = BASE | {"kind": "combine", "judge": {"model": "big"}}
CHAT = "/v1/chat/completions"


# What one may be.


def test_a_judge_is_asked_behind_all_members_and_what_is_left_out_has_a_default() -> None:
    found = read(BEST)
    assert found.judge
    assert (found.judge.prompt, found.judge.reads_chars) == (PROMPTS[EnsembleKind.BEST_OF], READS_CHARS)
    assert ([one.label for one in found.asked], found.first) == (["a", "a#2", "b", "judge"], (0, 1, 2))
    asked = chosen(1, 1, found, found.asked[-1])
    assert (asked.model, asked.place, asked.later) == ("big", 3, True)
    assert asked.params == {"temperature": 0, "max_tokens": 1_024}, "an answer of a number needs no more"
    assert chosen(1, 1, read(MIX), read(MIX).asked[-1]).params == {}, "what it writes is as the request would have it"
    named = BEST | {"judge": {"model": "big", "params": {"max_tokens": 5}, "prompt": "{answers}?", "reads_chars": 100}}
    other = read(named).judge
    assert other
    assert (other.member.params, other.prompt, other.reads_chars) == (
        {"temperature": 0, "max_tokens": 5}, "{answers}?", 100,
    )  # fmt: skip
    assert read(json.loads(json.dumps(named))) == read(named)


def test_a_member_that_is_called_judge_keeps_its_name() -> None:
    found = read(BEST | {"members": [{"model": "judge"}, {"model": "judge"}], "judge": {"model": "judge"}})
    assert [one.label for one in found.asked] == ["judge", "judge#2", "judge#3"]


@pytest.mark.parametrize(
    ("judge", "param", "words"),
    [
        (None, "judge", "needs a judge"),
        ("big", "judge", "must be an object"),
        ({}, "judge.model", "Missing required parameter"),
        ({"model": "best"}, "judge.model", "its own judge"),
        ({"model": "big", "prompt": "Which?"}, "judge.prompt", "has '{answers}'"),
        ({"model": "big", "prompt": ""}, "judge.prompt", "1 to 20000"),
        ({"model": "big", "prompt": "{answers}" * 9_999}, "judge.prompt", "1 to 20000"),
        *(({"model": "big", "reads_chars": chars}, "judge.reads_chars", "from 100 to 1,000,000")
          for chars in (99, 1_000_001, 1e3, True, "200")),
        ({"model": "big", "weight": 2}, "judge.weight", "not known here"),
        ({"model": "big", "params": {"messages": []}}, "judge.params.messages", "can't set"),
    ],
)  # fmt: skip
def test_what_can_be_no_judge_is_refused_with_the_place_and_the_reason(judge: Any, param: str, words: str) -> None:
    for written in (BEST, MIX):
        with pytest.raises(BadRequest) as refused:
            read(written | {"judge": judge})
        assert (refused.value.param, words in refused.value.message) == (param, True), refused.value.message


@pytest.mark.parametrize("field", ["extract", "tie", "accept", "rules", "default"])
def test_a_field_of_another_kind_is_none_of_a_judged_ones(field: str) -> None:
    for written in (BEST, MIX):
        with pytest.raises(BadRequest) as refused:
            read(written | {field: {}})
        assert (refused.value.code, refused.value.param) == ("unknown_parameter", field)


# What comes of what it says.

_JUDGES = st.sampled_from([FAILED, SAID, *(Heard(True, choice=number) for number in (0, 1, 2, 3, 4, 9_999))])


@st.composite
def panels(draw: st.DrawFn, kind: str = "best_of") -> EnsembleDefinition:
    weights = draw(st.lists(st.integers(1, 4), min_size=2, max_size=5))
    members = [{"model": "m", "weight": weight} for weight in weights]
    least, how = draw(st.integers(1, len(weights))), draw(st.sampled_from(["skip", "fail"]))
    return read(BASE | {"kind": kind, "judge": {"model": "j"}, "members": members, "min_responses": least,
                        "on_error": how})  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["best_of", "combine"]))
def test_the_order_of_arrival_does_not_matter_and_only_a_judge_that_has_something_to_judge_is_asked(
    data: st.DataObject, kind: str
) -> None:
    definition = data.draw(panels(kind))
    places = range(len(definition.members))
    said = {place: data.draw(st.sampled_from([FAILED, SAID, SAID])) for place in places}
    answered = sum(one.answered for one in said.values())
    known: dict[int, Heard] = {}
    for place in data.draw(st.permutations(places)):
        before = judge(definition, known)
        assert (before.winner, before.asks) == (None, ()), "nobody wins, and no judge is asked, before all have said"
        known[place] = said[place]
    found = judge(definition, known)
    assert found == judge(definition, said)
    fails = definition.fails_with_member and answered < len(places)
    if fails or answered < definition.min_responses:
        assert found == EnsembleVerdict(decided=True)
    elif answered == 1:
        assert found == EnsembleVerdict(True, next(place for place in places if said[place].answered))
    else:
        assert found == EnsembleVerdict(asks=(len(places),))


@settings(max_examples=60, deadline=None)
@given(st.data(), _JUDGES)
def test_numbers_count_only_answers_that_the_judge_read_and_what_is_none_leaves_it_to_the_heaviest(
    data: st.DataObject, said: Heard
) -> None:
    definition = dataclasses.replace(data.draw(panels()), min_responses=1)
    places = range(len(definition.members))
    good = data.draw(st.sets(st.sampled_from(list(places)), min_size=2))
    if definition.fails_with_member:
        good = set(places)
    heard = {place: SAID if place in good else FAILED for place in places}
    assert verdict.readable(definition, heard) == sorted(good)
    found = judge(definition, heard | {len(places): said})
    if said.choice is not None and 1 <= said.choice <= len(good):
        assert found == EnsembleVerdict(True, sorted(good)[said.choice - 1])
    elif definition.fails_with_member:
        assert found == EnsembleVerdict(True)
    else:
        weights = [definition.members[place].weight for place in sorted(good)]
        assert found == EnsembleVerdict(True, sorted(good)[weights.index(max(weights))], degraded=True)
    factor = data.draw(st.fractions(min_value=Fraction(1, 1000), max_value=1000))
    members = tuple(dataclasses.replace(one, weight=one.weight * factor) for one in definition.members)
    scaled = dataclasses.replace(definition, members=members)
    assert judge(scaled, heard | {len(places): said}) == found, "weights scale"


def test_what_a_combines_judge_writes_is_the_answer_unless_it_writes_none() -> None:
    all_said = dict.fromkeys(range(3), SAID)
    assert judge(read(MIX), all_said | {3: SAID}) == EnsembleVerdict(True, 3)
    for said in (FAILED, Heard(True, accepted=False)):
        assert judge(read(MIX), all_said | {3: said}) == EnsembleVerdict(True, 1, degraded=True), "the heaviest"
        assert judge(read(MIX | {"on_error": "fail"}), all_said | {3: said}) == EnsembleVerdict(True)


# What it is asked.


def asked(definition: EnsembleDefinition, endpoint: str, body: dict[str, Any], *texts: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(judging.question(definition, endpoint, json.dumps(body).encode(), texts))
    return found


def says(prompt: str, chars: int = 100, kind: str = "best_of") -> EnsembleDefinition:
    return read(BASE | {"kind": kind, "judge": {"model": "big", "prompt": prompt, "reads_chars": chars}})


def test_long_texts_are_cut_so_that_all_answers_together_are_as_long_as_was_said() -> None:
    body = asked(
        says("{request}|{answers}"), CHAT, {"messages": [{"role": "user", "content": "q" * 500}]}, "x" * 500, "y"
    )
    request, answers = body["messages"][0]["content"].split("|")
    assert (len(request), request[:9], request[-5:]) == (100, "user: qqq", "q […]")
    assert answers == f"Answer 1:\n{'x' * 46} […]\n\nAnswer 2:\ny"


def test_braces_in_what_it_reads_are_not_filled_in() -> None:
    body = {"messages": [{"role": "user", "content": "{answers} {count}"}]}
    found = asked(says("{count} {other} {request}: {answers}"), CHAT, body, "{request}", "{0} {{count}}")
    assert found["messages"][0]["content"] == (
        "2 {other} user: {answers} {count}: Answer 1:\n{request}\n\nAnswer 2:\n{0} {{count}}"
    )


def test_it_is_asked_at_the_requests_endpoint_and_reads_whatever_texts_are_there() -> None:
    definition, answer = says("{request}/{answers}"), "Answer 1:\nx"
    parts = [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]
    talk = [
        {"role": "system", "content": "be"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None},
    ]
    chat = asked(definition, CHAT, {"messages": talk}, "x")
    assert chat == {
        "model": "best",
        "messages": [{"role": "user", "content": f"system: be\nuser: ab\nassistant: /{answer}"}],
    }
    assert asked(definition, "/v1/completions", {"prompt": "p"}, "x") == {"model": "best", "prompt": f"p/{answer}"}
    items = {"instructions": "be", "input": [{"role": "user", "content": [{"type": "input_text", "text": "i"}]}]}
    found = asked(definition, "/v1/responses", items, "x")
    assert found == {"model": "best", "input": f"system: be\nuser: i/{answer}"}
    for odd in ({"messages": 7}, {"messages": [7]}, {"prompt": [1, 2]}, {}):
        assert asked(definition, CHAT, odd, "x")["messages"][0]["content"].strip().endswith(answer)
    half = judging.question(definition, CHAT, b'{"messages":[{"role":"user","content":"a \\ud83d"}]}', ["x"])
    assert json.loads(half)["messages"][0]["content"] == f"user: a ?/{answer}", "half a surrogate pair is no text"


def test_one_that_names_the_best_is_asked_nothing_else_and_one_that_writes_as_the_request_would_be() -> None:
    callers = {"service_tier": "flex", "cache": False, "cache_salt": "s", "user": "u"}
    wanted = {"max_tokens": 7, "stop": ["."], "response_format": {"type": "json_object"}, "temperature": 1}
    body = {"model": "best", "messages": [], "n": 3, "seed": 5, **callers, **wanted}
    best = asked(says("{answers}"), CHAT, body, "x")
    assert best.keys() == {"model", "messages", *callers}
    mixed = asked(says("{answers}", kind="combine"), CHAT, body, "x")
    assert mixed == {"model": "best", "messages": [{"role": "user", "content": "Answer 1:\nx"}], **callers, **wanted}


# What is heard of it, and told.


def answer(text: str | None, tokens: int = 5) -> bytes:
    usage = {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}
    return json.dumps({"choices": [{"index": 0, "message": {"content": text}}], "usage": usage}).encode()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("2", 2), (" 2.\n", 2), ("Answer 2", 2), ("**2**", 2), ("1 is bad, so 2", 2), ("[2]", 2), ("002", 2)),
        *(("", None), (None, None), ("neither", None), ("1.5", None), ("12345", None), ("v2", 2), ("0", 0)),
    ],
)
def test_the_number_that_it_names_is_the_last_one_in_its_text(text: str | None, number: int | None) -> None:
    hearing = Hearing(read(BEST))
    assert hearing.heard(answer(text), 3) == Heard(True, choice=number)
    assert hearing.heard(answer(text), 2) == SAID, "a member's text is not read"


def test_a_combines_judge_that_says_nothing_wrote_no_answer() -> None:
    hearing = Hearing(read(MIX))
    assert hearing.heard(answer("42"), 3) == SAID, "a number is no choice there"
    assert [hearing.heard(answer(text), 3).accepted for text in ("", " \n", None)] == [False] * 3


def test_the_answer_says_what_the_judge_chose_and_costs_what_it_read_too() -> None:
    fold = Fold(read(BEST), 3)
    said = {0: MemberAnswer("answered", answer("one")), 1: MemberAnswer("failed", code="request_timeout"),
            2: MemberAnswer("answered", answer("two"), tokens=6, ms=1)}  # fmt: skip
    assert fold.fold(said).verdict.asks == (3,)
    question = json.loads(fold.question(CHAT, b'{"messages":[]}', said))["messages"][0]["content"]
    assert question.endswith("Answer 1:\none\n\nAnswer 2:\ntwo")
    made = fold.fold(said | {3: MemberAnswer("answered", answer("2", 30), tokens=31, ms=9)}).body
    assert made is not None
    found = json.loads(made)
    assert (found["choices"][0]["message"]["content"], found["usage"]["total_tokens"]) == ("two", 6 + 6 + 31)
    trace = found["penstock"]
    assert trace["judge"] == {"model": "judge", "outcome": "answered", "tokens": 31, "ms": 9, "choice": 2}
    assert (trace["winner"], [one["model"] for one in trace["members"]]) == ("b", ["a", "a#2", "b"])
    assert "degraded" not in trace
    lost = fold.fold(said | {3: MemberAnswer("unavailable", code="no_worker")}).body
    assert lost is not None
    trace = json.loads(lost)["penstock"]
    assert (trace["winner"], trace["degraded"], trace["judge"]["code"]) == ("a", True, "no_worker")


def test_a_combines_answer_is_its_judges() -> None:
    said = {place: MemberAnswer("answered", answer(f"{place}")) for place in range(3)}
    made = Fold(read(MIX), 1).fold(said | {3: MemberAnswer("answered", answer("all 3", 30), tokens=31)}).body
    assert made is not None
    found = json.loads(made)
    assert (found["choices"][0]["message"]["content"], found["usage"]["total_tokens"]) == ("all 3", 3 * 6 + 31)
    assert (found["penstock"]["winner"], found["penstock"]["judge"].get("choice")) == ("judge", None)


def test_where_a_judge_without_verdict_is_the_requests_failure_that_is_said() -> None:
    said = {place: MemberAnswer("answered", answer("x")) for place in range(3)}
    fold = Fold(read(BEST | {"on_error": "fail"}), 1)
    assert fold.fold(said | {3: MemberAnswer("answered", answer("none"))}).error == (
        QUORUM, "The judge of the ensemble 'best' gave no verdict.",
    )  # fmt: skip
    assert fold.fold(said | {3: MemberAnswer("failed", code="request_timeout")}).error == (
        QUORUM, "A member of the ensemble 'best' did not answer (judge: request_timeout).",
    )  # fmt: skip
