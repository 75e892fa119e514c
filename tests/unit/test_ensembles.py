"""Ensembles: what a definition may be, and which member a request goes to."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.api_errors import BadRequest
from penstock.domain.ensembles import route
from penstock.domain.ensembles.conditions import CONDITIONS, contains_code
from penstock.domain.ensembles.definition import read
from penstock.domain.ensembles.ensemble import Rule
from penstock.formats.routed_request import RequestFacts, with_defaults
from penstock.scoring.language import language

CHAT = "/v1/chat/completions"
GOOD: dict[str, Any] = {
    "name": "support",
    "kind": "route",
    "members": [{"model": "small"}, {"model": "coder@stable", "params": {"temperature": 0}}, {"model": "long@v2"}],
    "rules": [
        {"when": {"contains_code": True}, "use": "coder@stable"},
        {"when": {"prompt_tokens_over": 100}, "use": "long@v2"},
    ],
    "default": "small",
}


def body(content: str = "hello", /, **more: Any) -> bytes:
    return json.dumps({"model": "support", "messages": [{"role": "user", "content": content}], **more}).encode()


def facts(raw: bytes) -> RequestFacts:
    """Its classifier says its `metadata.topic`."""
    topic = RequestFacts(raw, 4.0, lambda _, __: False).metadata.get("topic")
    return RequestFacts(raw, 4.0, lambda pattern, text: re.search(pattern, text) is not None, language, topic)


def goes_to(raw: bytes, **changes: Any) -> str:
    return route.route(read(GOOD | changes), facts(raw)).model


def only(**when: Any) -> dict[str, Any]:
    """A definition with one rule."""
    members = [{"model": "small"}, {"model": "yes"}]
    more = {"classifier": {"model": "small", "labels": ["billing", "code"]}} if "label" in when else {}
    return {"members": members, "rules": [{"when": when, "use": "yes"}], **more}


def test_the_first_rule_that_holds_counts_and_else_the_default() -> None:
    assert goes_to(body()) == "small"
    assert goes_to(body("x" * 500)) == "long@v2"
    assert goes_to(body("```\nx = 1\n```" + "x" * 500)) == "coder@stable"
    last = {"rules": [*GOOD["rules"], {"use": "small"}]}
    without_default = {name: value for name, value in (GOOD | last).items() if name != "default"}
    assert read(without_default) == read(GOOD), "a last rule without `when` says the same"
    nulls = {"default": None, "extract": None, "rules": [*GOOD["rules"], {"when": None, "use": "small"}]}
    assert read(GOOD | nulls) == read(GOOD), "a null says nothing"


@pytest.mark.parametrize(
    ("when", "holds", "does_not"),
    [
        ({"prompt_tokens_over": 20}, body("x" * 200), body()),
        ({"prompt_tokens_under": 20}, body(), body("x" * 200)),
        ({"contains_code": True}, body("def f(x):\n    return x\n"), body("Please return it, and import nothing.")),
        ({"contains_code": False}, body("a; b; c"), body("int x;\nint y;")),
        ({"tools": True}, body(tools=[{"type": "function"}]), body(tools=[])),
        ({"tools": False}, body(tools=None), body(tools=[{"type": "function"}])),
        ({"response_format": "json_schema"}, body(response_format={"type": "json_schema"}), body()),
        ({"response_format": "json_object"}, body(text={"format": {"type": "json_object"}}), body(response_format=7)),
        ({"response_format": "text"}, body(), body(response_format={"type": "json_object"})),
        ({"metadata": {"team": "a", "tier": "b"}}, body(metadata={"team": "a", "tier": "b", "c": 1}),
         body(metadata={"team": "a"})),
        ({"regex": "(?i)refund"}, body("A REFUND, please"), body("no")),
        ({"regex": "x", "tools": True}, body("x", tools=[{}]), body("x")),
        ({"language": ["de", "fr"]}, body("Wo ist meine Rechnung vom letzten Monat?"),
         body("Where is my invoice from last month?")),
        ({"language": ["de"]}, body("Danke schön für die schnelle Hilfe!"), body("Hallo")),
        ({"label": "code"}, body(metadata={"topic": "code"}), body(metadata={"topic": "billing"})),
    ],
)  # fmt: skip
def test_each_condition_holds_of_what_it_says(when: dict[str, Any], holds: bytes, does_not: bytes) -> None:
    assert goes_to(holds, **only(**when)) == "yes"
    assert goes_to(does_not, **only(**when)) == "small"


def test_the_table_above_has_each_condition_that_there_is() -> None:
    [mark] = [one for one in test_each_condition_holds_of_what_it_says.pytestmark if one.name == "parametrize"]  # type: ignore[attr-defined]
    assert {name for when, _, _ in mark.args[1] for name in when} == set(CONDITIONS)


def test_the_last_message_is_read_whatever_kind_of_request_it_is() -> None:
    parts = [{"type": "text", "text": "a re"}, {"type": "image_url"}, {"type": "text", "text": "fund"}]
    messages = [{"role": "system", "content": "refund refund"}, {"role": "user", "content": parts}]
    assert facts(json.dumps({"messages": messages}).encode()).last == "a refund"
    assert facts(json.dumps({"messages": [*messages, {"role": "user", "content": "no"}]}).encode()).last == "no"
    assert facts(b'{"prompt":["one","two"]}').last == "two"
    assert facts(b'{"input":"three"}').last == "three"
    assert facts(b'{"input":[{"role":"user","content":[{"type":"input_text","text":"four"}]}]}').last == "four"


@settings(max_examples=60, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
                    max_leaves=9),
       st.sampled_from(["messages", "prompt", "input", "tools", "response_format", "text", "metadata"]))  # fmt: skip
def test_a_body_that_is_misshapen_goes_somewhere_too_for_the_engine_to_refuse(value: Any, name: str) -> None:
    every = {name: True if name in ("contains_code", "tools") else 1 for name in CONDITIONS}
    every |= {"response_format": "text", "metadata": {"a": "b"}, "regex": "x", "language": ["en"], "label": "code"}
    for condition, wanted in every.items():
        assert goes_to(json.dumps({name: value}).encode(), **only(**{condition: wanted})) in ("yes", "small")


_TEXTS = st.sampled_from(["", "hello", "a refund", "x" * 90, "x" * 900, "```\ncode\n```", "let x = 1;\nlet y = 2;"])
_BODIES = st.builds(
    lambda text, tools, kind, team: body(text, tools=tools, response_format=kind, metadata=team),
    _TEXTS,
    st.sampled_from([None, [{"type": "function"}]]),
    st.sampled_from([None, {"type": "json_object"}]),
    st.sampled_from([None, {"team": "a"}, {"topic": "code"}]),
)
_WHEN = st.dictionaries(st.sampled_from(sorted(CONDITIONS)), st.none(), min_size=1, max_size=3).flatmap(
    lambda names: st.fixed_dictionaries({name: _VALUES[name] for name in names})
)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "prompt_tokens_over": st.integers(0, 300),
    "prompt_tokens_under": st.integers(0, 300),
    "contains_code": st.booleans(),
    "tools": st.booleans(),
    "response_format": st.sampled_from(["text", "json_object"]),
    "metadata": st.just({"team": "a"}),
    "regex": st.sampled_from(["refund", "^x", "$"]),
    "language": st.sampled_from([["en"], ["de", "fr"]]),
    "label": st.sampled_from(["billing", "code"]),
}
_RULES = st.lists(st.builds(Rule, st.sampled_from("abc"), _WHEN), max_size=6).map(lambda rules: [*rules, Rule("a")])


@settings(max_examples=40, deadline=None)
@given(_RULES, _BODIES)
def test_what_is_chosen_holds_and_nothing_before_it_does(rules: list[Rule], raw: bytes) -> None:
    place = route.first(rules, facts(raw))

    def holds(rule: Rule) -> bool:
        return all(CONDITIONS[name].holds(wanted, facts(raw)) for name, wanted in rule.when.items())

    assert [holds(rule) for rule in rules[: place + 1]] == [False] * place + [True]
    assert route.first(rules, facts(raw)) == place, "the same request goes the same way"


@settings(max_examples=40, deadline=None)
@given(_RULES, _BODIES, _RULES)
def test_rules_behind_the_one_that_holds_and_ones_that_never_hold_change_nothing(
    rules: list[Rule], raw: bytes, others: list[Rule]
) -> None:
    place = route.first(rules, facts(raw))
    assert route.first([*rules[: place + 1], *others], facts(raw)) == place
    never = Rule("c", {"tools": True, "prompt_tokens_under": 0})
    assert route.first([never, *rules], facts(raw)) == place + 1


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"kind": "magic"}, "kind", "'magic' is no kind of ensemble; there are: route, fallback, vote, "),
        ({"judge": {"model": "small"}}, "judge", "'judge' is not known here"),
        ({"kind": None}, "kind", "Missing required parameter: 'kind'."),
        ({"name": ""}, "name", "1 to 200 characters"),
        ({"name": "a@b"}, "name", "has no '@'"),
        ({"members": []}, "members", "1 to 20"),
        ({"members": [{"model": "m"}] * 21}, "members", "1 to 20"),
        ({"members": ["small"]}, "members[0]", "must be an object"),
        ({"members": [{"model": "support"}]}, "members[0].model", "its own member"),
        ({"members": [{"model": "m"}, {"model": "m"}]}, "members[1].model", "'m' is there twice"),
        ({"members": [{"model": "m", "weight": 1}]}, "members[0].weight", "'weight' is not known here"),
        ({"members": [{"model": "m", "params": 7}]}, "members[0].params", "fields of a request"),
        ({"members": [{"model": "m", "params": {"model": "x"}}]}, "members[0].params.model", "can't set 'model'"),
        ({"members": [*GOOD["members"], {"model": "idle"}]}, "rules", "No rule uses the member 'idle'."),
        ({"rules": [{"when": {"tools": True}, "use": "nobody"}]}, "rules[0].use", "'nobody' is no member"),
        ({"default": "nobody"}, "default", "'nobody' is no member"),
        ({"default": None}, "default", "add a 'default'"),
        ({"rules": [{"use": "small"}]}, "rules[0]", "must be the last"),
        ({"rules": [{"when": {}, "use": "small"}]}, "rules[0].when", "'when' is empty"),
        ({"rules": [{"when": {"moon": 1}, "use": "small"}]}, "rules[0].when.moon", "'moon' is not known here"),
        ({"rules": {"when": {}}}, "rules", "1 to 50"),
        *(({"rules": [{"when": {"language": value}, "use": "small"}]}, "rules[0].when.language", "ISO 639-1 codes")
          for value in ("de", [], ["german"], ["xx"], [1], [["de"]], ["de"] * 51)),
        *(({"rules": [{"when": {name: None}, "use": "small"}]}, f"rules[0].when.{name}", f"{name!r} takes ")
          for name in CONDITIONS),
        ({"rules": [{"when": {"prompt_tokens_over": -1}, "use": "small"}]}, "rules[0].when.prompt_tokens_over", ""),
        ({"rules": [{"when": {"metadata": {"a": 1}}, "use": "small"}]}, "rules[0].when.metadata", "texts by key"),
        ({"timeout_seconds": 60}, "timeout_seconds", "not known here"),
    ],
)  # fmt: skip
def test_what_can_be_no_ensemble_is_refused_with_the_place_and_the_reason(
    changes: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        read(GOOD | changes)
    assert (refused.value.param, words in refused.value.message) == (param, True), refused.value.message


@pytest.mark.parametrize("value", [None, [], "support", 7, {}])
def test_what_is_no_object_or_empty_is_refused(value: Any) -> None:
    with pytest.raises(BadRequest):
        read(value)


def test_without_a_default_a_definition_is_refused() -> None:
    with pytest.raises(BadRequest, match="add a 'default'"):
        read({name: value for name, value in GOOD.items() if name != "default"})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Why does this fail?\n\n```python\nprint(1)\n```", True),
        ("SELECT a FROM b\nWHERE c = 1;", True),
        ("#include <stdio.h>\nint main() {", True),
        ("We import cars from Japan.\nLet me know, if you return for them.", False),
        ("One sentence; another one.\nfor all of us", False),
        ("", False),
        ("x;\n" * 100_000, True),
        ("x\n" * 1_000_000, False),
    ],
)
def test_code_is_a_fence_or_two_lines_of_it(text: str, found: bool) -> None:
    assert contains_code(text) is found


def test_params_are_said_where_the_request_says_nothing_itself() -> None:
    params = {"temperature": 0, "max_tokens": 9, "seed": 7}
    made = json.loads(with_defaults(b'{"model":"x","temperature":1e0}', CHAT, params))
    assert made == {"model": "x", "temperature": 1.0, "max_tokens": 9, "seed": 7}
    assert b'"temperature":1e0' in with_defaults(b'{"temperature":1e0}', CHAT, params), "as it was written"
    limited = json.loads(with_defaults(b'{"max_completion_tokens":5}', CHAT, params))
    assert limited == {"max_completion_tokens": 5, "temperature": 0, "seed": 7}, "a limit by its other name is its own"
    assert json.loads(with_defaults(b"{}", "/v1/responses", params))["max_output_tokens"] == 9
    assert with_defaults(b'{"seed":1}', CHAT, {"seed": 2}) == b'{"seed":1}'
    assert with_defaults(b"[1", CHAT, params) == b"[1"
