"""Classifiers: what one may be, what it is asked, what label is in its answer, and where that leads a request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.api_errors import BadRequest
from penstock.domain.ensembles.classifier import PROMPT, READS_CHARS
from penstock.domain.ensembles.definition import read
from penstock.domain.ensembles.ensemble import EnsembleDefinition, MemberCounts, chosen
from penstock.domain.ensembles.escalation import ALWAYS, Reached, reached
from penstock.domain.ensembles.languages import LANGUAGES
from penstock.domain.ensembles.verdict import EnsembleVerdict, Heard, judge
from penstock.scoring.language import MOST_CHARACTERS, known, language
from penstock.service.ensembles import classifying
from penstock.service.ensembles.fold import QUORUM, Fold, MemberAnswer
from penstock.service.ensembles.routing import Router

CHAT = "/v1/chat/completions"
WRITTEN: dict[str, Any] = {
    "name": "desk",
    "kind": "route",
    "members": [{"model": "bills"}, {"model": "coder"}, {"model": "small"}],
    "classifier": {"model": "cheap", "labels": ["billing", "code", "other"]},
    "rules": [
        {"when": {"contains_code": True}, "use": "coder"},
        {"when": {"label": "billing", "tools": False}, "use": "bills"},
        {"when": {"label": "code"}, "use": "coder"},
    ],
    "default": "small",
}
DESK = read(WRITTEN)
CLASSIFIER = 3
ENGLISH = "I can't get into my account since I forgot the password, and nobody has answered my letter of last week. "


def body(text: str = "hello", **more: Any) -> bytes:
    return json.dumps({"model": "desk", "messages": [{"role": "user", "content": text}], **more}).encode()


def answer(text: str, tokens: int = 5) -> MemberAnswer:
    message = {"role": "assistant", "content": text}
    whole = {"choices": [{"message": message}], "usage": {"prompt_tokens": 1, "total_tokens": tokens}}
    return MemberAnswer("answered", json.dumps(whole).encode(), tokens=tokens)


# What one may be.


def test_a_classifier_is_asked_before_any_member_and_what_is_left_out_has_a_default() -> None:
    found = DESK.classifier
    assert found
    assert (found.prompt, found.reads_chars, found.labels) == (PROMPT, READS_CHARS, ("billing", "code", "other"))
    assert ([one.label for one in DESK.asked], DESK.first) == (["bills", "coder", "small", "classifier"], (CLASSIFIER,))
    asked = [chosen(1, 1, DESK, one) for one in DESK.asked]
    assert [(one.later, one.gathers, bool(one.classifier)) for one in asked] == [(True, True, False)] * 3 + [
        (False, True, True)
    ]
    alone = chosen(1, 1, DESK, DESK.asked[0], gathered=False)
    assert (alone.later, alone.gathers) == (False, False), "where no label was needed it is a route's as any"
    assert asked[CLASSIFIER].params == {"temperature": 0, "max_tokens": 1_024}
    assert read(json.loads(json.dumps(WRITTEN))) == DESK


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({}, "classifier.model", "Missing required"),
        ({"model": "desk"}, "classifier.model", "its own classifier"),
        ({"model": "x"}, "classifier.labels", "Missing required"),
        *(({"model": "x", "labels": labels}, "classifier.labels", "1 to 100")
          for labels in ([], "billing", [f"{n}" for n in range(101)])),
        *(({"model": "x", "labels": ["code", label]}, "classifier.labels[1]", "A label is")
          for label in ("", " x", "x" * 101, 1, None, "two\nlines")),
        ({"model": "x", "labels": ["code", "Code"]}, "classifier.labels", "the same but for"),
        ({"model": "x", "labels": ["code"]}, "rules[1].when.label", "'billing' is no label; there are: code"),
        ({"model": "x", "labels": ["billing", "code"], "prompt": "Which?"}, "classifier.prompt", "has '{request}'"),
        ({"model": "x", "labels": ["code"], "prompt": "{request}" * 9_999}, "classifier.prompt", "1 to 20000"),
        ({"model": "x", "labels": ["code"], "reads_chars": 1}, "classifier.reads_chars", "from 100"),
        ({"model": "x", "labels": ["code"], "params": {"messages": []}}, "classifier.params.messages", "can't set"),
        ({"model": "x", "labels": ["code"], "weight": 1}, "classifier.weight", "not known here"),
        ("x", "classifier", "must be an object"),
        (None, "rules[1].when.label", "the ensemble has no 'classifier'"),
    ],
)  # fmt: skip
def test_what_can_be_no_classifier_is_refused_with_the_place_and_the_reason(
    changes: Any, param: str, words: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        read(WRITTEN | {"classifier": changes})
    assert (refused.value.param, words in refused.value.message) == (param, True), refused.value.message


def test_a_classifier_that_no_rule_reads_and_one_of_another_kind_are_refused() -> None:
    plain = {"members": [{"model": "coder"}, {"model": "small"}], "rules": WRITTEN["rules"][:1]}
    with pytest.raises(BadRequest, match="No rule reads the classifier's label"):
        read(WRITTEN | plain)
    with pytest.raises(BadRequest, match="'on_error' is not known here"):
        read({**WRITTEN, **plain, "classifier": None, "on_error": "fail"})
    with pytest.raises(BadRequest, match="'classifier' is not known here"):
        read({"name": "v", "kind": "fallback", "members": WRITTEN["members"], "classifier": WRITTEN["classifier"]})


# What it is asked.


def test_it_is_asked_for_a_label_of_the_last_user_message_and_nothing_else() -> None:
    asked = chosen(1, 1, DESK, DESK.asked[CLASSIFIER])
    messages = [
        {"role": "user", "content": "old"},
        {"role": "user", "content": [{"type": "text", "text": "My {labels} bill"}]},
        {"role": "tool", "content": "7"},
    ]
    more = {"tools": [{}], "stream": True, "stop": ["x"], "n": 3, "service_tier": "flex"}
    made = json.loads(classifying.asked(asked, CHAT, json.dumps({"messages": messages, **more}).encode()))
    [message] = made.pop("messages")
    assert message["content"] == PROMPT.replace("{labels}", "- billing\n- code\n- other").replace(
        "{request}", "My {labels} bill"
    )
    assert made == {"model": "desk", "service_tier": "flex", "temperature": 0, "max_tokens": 1_024}
    long = json.loads(classifying.asked(asked, "/v1/completions", json.dumps({"prompt": "x" * 9_000}).encode()))
    assert long["prompt"].count("x") < READS_CHARS < len(long["prompt"])
    assert long["prompt"].endswith("x […]")
    said = json.loads(classifying.asked(asked, "/v1/responses", b'{"input":"hi","instructions":"be kind"}'))
    assert (said["input"].endswith("\nhi"), "instructions" in said, said["max_output_tokens"]) == (True, False, 1_024)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("billing", "billing"),
        (" **Billing**.\n", "billing"),
        ('{"label": "code"}', "code"),
        ("Is it billing? No: code", "code"),
        ("<think>other, or code?</think>\n\nother", "other"),
        ("another", None),
        ("encoded", None),
        ("", None),
        (None, None),
        ("x" * 1_000_000, None),
        ("code" * 100_000, None),
    ],
)
def test_the_label_that_an_answer_names_last_is_its_label(text: str | None, label: str | None) -> None:
    assert DESK.classifier
    assert classifying.label(DESK.classifier, text) == label


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=6), min_size=1, max_size=6,
                unique_by=str.casefold), st.data())  # fmt: skip
def test_a_label_alone_is_that_label(labels: list[str], data: st.DataObject) -> None:
    some = {"labels": labels, "model": "m"}
    found = read(WRITTEN | {"classifier": some, "rules": [
        {"when": {"label": labels[0]}, "use": "bills"}, {"when": {"tools": True}, "use": "coder"},
    ]}).classifier  # fmt: skip
    assert found
    label = data.draw(st.sampled_from(labels))
    assert classifying.label(found, f"  {label}\n") == label


# Where it leads.


def leads(label: str | None, raw: bytes) -> str:
    return DESK.rules[Router(4.0).labelled(DESK, raw, label)].use


def test_a_label_is_needed_only_where_no_rule_before_holds_without_it() -> None:
    assert leads("billing", body()) == "bills"
    assert leads("billing", body(tools=[{}])) == "small"
    assert leads("code", body()) == "coder"
    assert leads("other", body()) == leads(None, body()) == "small"
    assert leads("billing", body("```\nx\n```")) == "coder", "rules are read in their order"


def test_the_verdict_asks_the_classifier_and_then_the_member_of_its_label() -> None:
    assert judge(DESK, {}) == EnsembleVerdict(asks=(CLASSIFIER,))
    said = {CLASSIFIER: Heard(answered=True, label="code", leads=1)}
    assert judge(DESK, said) == EnsembleVerdict(asks=(1,))
    assert judge(DESK, said | {1: Heard(answered=True)}) == EnsembleVerdict(decided=True, winner=1)
    assert judge(DESK, said | {1: Heard(answered=False)}) == EnsembleVerdict(decided=True)
    for nothing in (Heard(answered=False, leads=2), Heard(answered=True, leads=2)):
        assert judge(DESK, {CLASSIFIER: nothing}) == EnsembleVerdict(asks=(2,), degraded=True)
        given = judge(DESK, {CLASSIFIER: nothing, 2: Heard(answered=True)})
        assert given == EnsembleVerdict(decided=True, winner=2, degraded=True)
        strict = read(WRITTEN | {"on_error": "fail"})
        assert judge(strict, {CLASSIFIER: nothing}) == EnsembleVerdict(decided=True)


def told(definition: EnsembleDefinition, answers: dict[int, MemberAnswer]) -> Any:
    folded = Fold(definition, 2).fold(answers, endpoint=CHAT, request=body())
    if folded.body is None:
        return folded.error or folded.verdict.asks
    return json.loads(folded.body)["penstock"], json.loads(folded.body)["usage"]["total_tokens"]


def test_the_trace_says_the_label_and_the_usage_counts_the_classifier() -> None:
    assert told(DESK, {CLASSIFIER: answer("code")}) == (1,)
    trace, tokens = told(DESK, {CLASSIFIER: answer("code", 3), 1: answer("x", 4)})
    assert tokens == 7
    assert trace == {
        "ensemble": "desk", "version": "v2", "kind": "route", "winner": "coder",
        "members": [{"model": "coder", "outcome": "answered", "tokens": 4, "ms": 0}],
        "classifier": {"model": "classifier", "outcome": "answered", "tokens": 3, "ms": 0, "label": "code"},
    }  # fmt: skip
    trace, _ = told(DESK, {CLASSIFIER: MemberAnswer("failed", code="timeout"), 2: answer("x")})
    assert (trace["winner"], trace["degraded"], trace["classifier"]["code"]) == ("small", True, "timeout")
    trace, _ = told(DESK, {CLASSIFIER: answer("dunno"), 2: answer("x")})
    assert (trace["winner"], trace["degraded"], "label" in trace["classifier"]) == ("small", True, False)


def test_what_leaves_a_request_without_an_answer_is_said() -> None:
    strict, failed = read(WRITTEN | {"on_error": "fail"}), MemberAnswer("failed", code="timeout")
    words = "A member of the ensemble 'desk' did not answer ({}: timeout)."
    assert told(strict, {CLASSIFIER: failed}) == (QUORUM, words.format("classifier"))
    assert told(DESK, {CLASSIFIER: answer("code"), 1: failed}) == (QUORUM, words.format("coder"))
    nothing = "The classifier of the ensemble 'desk' named none of its labels."
    assert told(strict, {CLASSIFIER: answer("dunno")}) == (QUORUM, nothing)


def test_an_estimate_counts_on_the_labels_that_were_said_before() -> None:
    even = Reached(0.0, 1 / 3, 1.0)
    assert reached(DESK, {}) == (even, even, even, ALWAYS)
    went = {"bills": MemberCounts(60, 60), "coder": MemberCounts(30, 20, 10), "small": MemberCounts(10, 0, 0, 10)}
    found = reached(DESK, went)
    assert [round(one.expected, 2) for one in found] == [0.6, 0.3, 0.1, 1.0]
    assert all(one.low < one.expected < one.high for one in found[:3])


# Languages.


def test_each_language_that_a_rule_may_name_can_be_found_and_none_else_has_two_letters() -> None:
    assert {one for one in known() if len(one) == 2} == LANGUAGES


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Wo ist meine Rechnung vom letzten Monat?", "de"),
        ("Où est ma facture du mois dernier ?", "fr"),
        ("I forgot my password and can't get into my account.", "en"),
        ("先月の請求書はどこですか", "ja"),
        ("Где мой счёт за прошлый месяц?", "ru"),
        ("Де мій рахунок за минулий місяць?", "uk"),
        (ENGLISH * 10 + "Wo ist meine Rechnung vom letzten Monat, und wann kommt die nächste? " * 1_000, "en"),
        *((text, None) for text in ("", " \n", "42", "ok", "👍", "Hallo", "Merci", "\ud800", "asdf qwer")),
    ],
)
def test_a_text_has_the_language_of_its_beginning_if_that_is_sure(text: str, code: str | None) -> None:
    assert language(text) == code
    assert MOST_CHARACTERS < 2_000
