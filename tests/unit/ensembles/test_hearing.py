"""Hearing: which vote is in an answer, and whether it is good enough."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.domain.ensembles.definition import read
from penstock.domain.ensembles.verdict import Heard
from penstock.scoring.bounded_regex import MOST_TIMEOUTS
from penstock.service.ensembles.hearing import FAILED, Hearing, mean_logprob

MEMBERS = [{"model": "a"}, {"model": "b"}]


def chat(text: Any, **more: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, **more}]}).encode()


def voting(**extract: Any) -> Hearing:
    return Hearing(read({"name": "e", "kind": "vote", "members": MEMBERS, "extract": extract}))


def accepting(**accept: Any) -> Hearing:
    return Hearing(read({"name": "e", "kind": "cascade", "members": MEMBERS, "accept": accept}))


ENUM = {"json_schema": {"enum": ["Yes", "No"]}, "normalise": "lower_trim"}
PROPERTY = {"json_schema": {"properties": {"label": {"enum": ["yes", "no"]}}}}


@pytest.mark.parametrize(
    ("extract", "text", "vote"),
    [
        ({}, " Paris\n", "Paris"),
        ({}, "  ", None),
        ({"normalise": "lower_trim"}, " STRASSE ", "strasse"),
        ({"normalise": "lower_trim"}, "Straße", "strasse"),
        ({"regex": r"(?m)^Answer: (.+)$"}, "Well.\nAnswer: 42 \nAnswer: 43", "42"),
        ({"regex": "yes|no"}, "I say no, not yes", "no"),
        ({"regex": "(yes)|no"}, "no", None),
        ({"regex": "yes"}, "no", None),
        ({"json": ""}, '"yes"', "yes"),
        ({"json": ""}, "[1, 2]", "[1, 2]"),
        ({"json": "/label"}, '{"label": "yes"}', "yes"),
        ({"json": "/label"}, '{"label": 7}', "7"),
        ({"json": "/label"}, '{"label": {"b": 1, "a": true}}', '{"a": true, "b": 1}'),
        ({"json": "/label"}, '{"label": null}', None),
        ({"json": "/label"}, '{"other": 1}', None),
        ({"json": "/label"}, '[{"label": 1}]', None),
        ({"json": "/label"}, '"label"', None),
        ({"json": "/label"}, "yes", None),
        ({"json": "/label"}, '{"label": "\\ud83d"}', "?"),
        ({"json": "/a~1b/~01/1"}, '{"a/b": {"~1": ["x", "y"]}}', "y"),
        ({"json": "/0"}, '["x"]', "x"),
        *(({"json": f"/{index}"}, '["x", "y"]', None) for index in ("2", "01", "-1", "-", "", "0000000000", "9" * 99)),
        ({"json": "/0"}, '{"0": "x"}', "x"),
        ({"json": "/a"}, "[" * 100_000, None),
        (ENUM, "yes", "Yes"),
        (ENUM, ' "NO" ', "No"),
        (ENUM, "maybe", None),
        (PROPERTY, '{"label": "yes", "why": "so"}', "yes"),
        (PROPERTY, '{"label": "YES"}', None),
        (PROPERTY, "yes", None),
    ],
)  # fmt: skip
def test_a_vote_is_read_as_the_definition_says(extract: dict[str, Any], text: str, vote: str | None) -> None:
    said = voting(**extract).heard(chat(text), 0)
    assert (said.answered, said.vote) == (True, vote)
    json.dumps(said.vote, ensure_ascii=False).encode()


def test_it_is_the_text_of_each_endpoint_and_what_has_none_has_no_vote() -> None:
    hearing = voting()

    def hears(body: bytes | None) -> Heard:
        return hearing.heard(body, 1)

    assert hears(b'{"choices":[{"text":" a"},{"text":"b"}]}').vote == "a"
    assert hears(chat([{"type": "text", "text": "a"}])).vote == "a"
    assert hears(b'{"output":[{"type":"message","content":[{"type":"output_text","text":"a"}]}]}').vote == "a"
    for body in (chat(None, tool_calls=[{}]), b'{"data":[{"index":0,"embedding":[1]}]}', b"[]", b"", b"{" * 9_999):
        assert (hears(body).answered, hears(body).vote) == (True, None)
    assert hears(None) == FAILED


def test_a_pattern_that_takes_too_long_finds_no_vote_and_accepts_nothing() -> None:
    slow = "a" * 200 + "b"
    assert voting(regex="(a|aa)+$").heard(chat(slow), 0).vote is None
    assert not accepting(regex="(a|aa)+$").heard(chat(slow), 0).accepted
    assert not accepting(json_schema={"pattern": "(a|aa)+$"}).heard(chat(f'"{slow}"'), 0).accepted


def test_a_pattern_that_was_too_slow_too_often_still_finds_what_others_say() -> None:
    hearing = voting(regex="(a|aa)+$")
    assert hearing._vote_pattern
    hearing._vote_pattern._timeouts = MOST_TIMEOUTS
    assert hearing.heard(chat("a" * 200 + "b"), 0).vote is None
    assert hearing.heard(chat("aa"), 0).vote == "a"


@pytest.mark.parametrize(
    ("accept", "good", "bad"),
    [
        ({"regex": "^Yes"}, chat("Yes, it is"), chat("No")),
        ({"json_schema": {"required": ["a"]}}, chat('{"a": 1}'), chat("{}")),
        ({"json_schema": {"type": "object"}}, chat("{}"), chat("{")),
        ({"regex": "a", "json_schema": {"type": "string"}}, chat('"a"'), chat('"b"')),
        ({"regex": "a", "json_schema": {"type": "string"}}, chat('"a"'), chat("a")),
        ({"regex": ""  "."}, chat("a"), chat(None, tool_calls=[{}])),
        ({"mean_logprob_over": -0.5}, chat("a", logprobs={"content": [{"logprob": -0.2}, {"logprob": -0.7}]}),
         chat("a", logprobs={"content": [{"logprob": -0.2}, {"logprob": -0.8}]})),
        ({"mean_logprob_over": -0.5}, b'{"choices":[{"text":"a","logprobs":{"token_logprobs":[null,-0.1]}}]}',
         b'{"choices":[{"text":"a","logprobs":{"token_logprobs":[null,-0.9]}}]}'),
        ({"mean_logprob_over": -0.5, "regex": "a"}, chat("a", logprobs={"content": [{"logprob": 0}]}),
         chat("b", logprobs={"content": [{"logprob": 0}]})),
        ({"mean_logprob_over": -0.5}, chat("a", logprobs={"content": [{"logprob": 0}]}), chat("a")),
    ],
)  # fmt: skip
def test_an_answer_is_good_enough_if_all_holds_that_is_said(accept: dict[str, Any], good: bytes, bad: bytes) -> None:
    assert [accepting(**accept).heard(body, 1).accepted for body in (good, bad)] == [True, False]


@pytest.mark.parametrize(
    "logprobs",
    [
        *(None, 7, [], {}, {"content": []}, {"content": None}, {"content": [None, {}]}),
        *(
            {"content": [{"logprob": "x"}]},
            {"token_logprobs": 7},
            {"token_logprobs": "abc"},
            {"token_logprobs": [None]},
        ),
    ],
)
def test_an_answer_that_does_not_say_how_sure_it_is_has_no_mean(logprobs: Any) -> None:
    assert mean_logprob(chat("a", logprobs=logprobs)) is None


def test_odd_answers_have_no_mean_either() -> None:
    huge = b'{"choices":[{"text":"\\ud83d","logprobs":{"token_logprobs":[1' + b"0" * 400 + b"]}}]}"
    for body in (b"", b"[]", b'{"choices":[]}', b'{"choices":7}', huge):
        assert mean_logprob(body) is None


def test_a_fallback_takes_whatever_is_an_answer() -> None:
    hearing = Hearing(read({"name": "e", "kind": "fallback", "members": MEMBERS}))
    assert hearing.heard(b'{"data":[]}', 0).accepted
    assert hearing.heard(None, 1) == FAILED
