"""Requests that mean the same have one fingerprint, and only those that have one answer have any."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.formats.canonical import _IDLE, _IDLE_BUT_SAID_BACK, fingerprint

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
ASK = {"model": "m", "messages": [{"role": "user", "content": "Where?"}], "temperature": 0}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
names = st.text(min_size=1, max_size=8).filter(lambda name: name not in {"stream", "tools", "user", "store", "cache"})
fields = st.dictionaries(names, values, max_size=5)


def of(url: str = CHAT, **changes: Any) -> bytes | None:
    return fingerprint(url, {**ASK, **changes})


@given(fields, st.randoms(use_true_random=False), st.sampled_from([None, 1, 4]), st.booleans())
def test_neither_order_nor_white_space_nor_escapes_matter(
    more: dict[str, Any], chance: Any, indent: int | None, ascii: bool
) -> None:
    body = {**more, **ASK}
    shuffled = list(body.items())
    chance.shuffle(shuffled)
    written = dict(shuffled)
    written["messages"] = [{"content": "Where?", "role": "user"}]
    text = json.dumps(written, indent=indent, ensure_ascii=ascii).encode()
    assert fingerprint(CHAT, text) == fingerprint(CHAT, body) is not None


@given(fields, fields)
def test_other_fields_are_another_request(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = {**one, **ASK}, {**other, **ASK}
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    if not same and not {*one, *other} & {*_IDLE, *_IDLE_BUT_SAID_BACK}:
        assert fingerprint(CHAT, first) != fingerprint(CHAT, second)


@pytest.mark.parametrize(
    "idle",
    [
        {"metadata": {"run": "7"}},
        {"user": "anna"},
        {"service_tier": "flex"},
        {"priority": 3},
        {"store": True},
        {"request_id": "mine"},
        {"prompt_cache_key": "k"},
        {"safety_identifier": "s"},
        {"cache": {"mode": "on"}},
        {"stream": False},
        {"stream": None},
    ],
    ids=lambda idle: next(iter(idle)),
)
def test_what_cannot_change_the_answer_is_left_out(idle: dict[str, Any]) -> None:
    assert of(**idle) == of() is not None


@pytest.mark.parametrize(
    "telling",
    [
        {"model": "n"},
        {"logprobs": True},
        {"max_tokens": 5},
        {"n": 2},
        {"seed": 1},
        {"stop": "."},
        {"tools": []},
        {"user": 7},  # refused by the engine
        {"stream_options": {"include_usage": True}},  # refused without a stream
        {"cache_salt": "s"},
        {"logit_bias": {"1": 2}},
        {"temperature": 0, "top_p": 0.5},
        {"messages": [{"role": "system", "content": "Where?"}]},
    ],
    ids=lambda telling: next(iter(telling)),
)
def test_what_may_change_the_answer_is_in_it(telling: dict[str, Any]) -> None:
    assert of(**telling) not in (of(), None)


def test_the_order_in_a_schema_shapes_the_answer() -> None:
    def asked(*names: str) -> bytes | None:
        schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}}
        return of(response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}})

    assert asked("why", "what") != asked("what", "why")


def test_numbers_that_a_float_cannot_tell_apart_are_apart() -> None:
    one, other = b'{"temperature":0,"x":123456789012345678901234}', b'{"temperature":0,"x":123456789012345678901235}'
    assert fingerprint(CHAT, one) != fingerprint(CHAT, other)


@pytest.mark.parametrize("url", [CHAT, COMPLETIONS, RESPONSES])
@pytest.mark.parametrize(
    ("said", "has_one_answer"),
    [
        ({}, False),
        ({"temperature": None}, False),
        ({"temperature": 0.7}, False),
        ({"temperature": 1e-9}, False),
        ({"temperature": False}, False),
        ({"temperature": "0"}, False),
        ({"temperature": 0}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": -0.0}, True),
        ({"seed": 0}, True),
        ({"seed": 7, "temperature": 1, "n": 3}, True),
        ({"seed": -1}, False),
        ({"seed": None}, False),
        ({"seed": True}, False),
        ({"temperature": 0, "stream": True}, False),
        ({"temperature": 0, "stream": "true"}, False),
    ],
    ids=str,
)
def test_temperature_zero_or_a_seed_makes_one_answer(url: str, said: dict[str, Any], has_one_answer: bool) -> None:
    body = {"model": "m", "prompt": "Where?", **said}
    assert (fingerprint(url, body) is not None) == has_one_answer
    assert fingerprint(url, json.dumps(body).encode()) == fingerprint(url, body)


@pytest.mark.parametrize("url", ["/v1/embeddings", "/v1/score", "/v1/rerank"])
def test_endpoints_that_draw_nothing_have_one_answer(url: str) -> None:
    assert fingerprint(url, {"model": "m", "input": "a"}) is not None
    assert fingerprint(url, {"model": "m", "input": "a"}) != fingerprint(url, {"model": "m", "input": "b"})


def test_an_endpoint_is_part_of_the_request() -> None:
    body = {"model": "m", "input": "a", "temperature": 0}
    assert len({fingerprint(url, body) for url in (CHAT, COMPLETIONS, RESPONSES, "/v1/embeddings")}) == 4
    assert fingerprint("/v1/unknown", body) is None


def test_a_response_says_metadata_back() -> None:
    assert of(RESPONSES, metadata={"run": "7"}) != of(RESPONSES)
    assert of(RESPONSES, user="anna") != of(RESPONSES)


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"background": True},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "function", "name": "f"}, {"type": "mcp"}]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_response_that_leans_on_the_world_has_no_fingerprint(fields: dict[str, Any]) -> None:
    assert of(RESPONSES, **fields) is None


def test_a_response_with_functions_has_one() -> None:
    assert of(RESPONSES, tools=[{"type": "function", "name": "f"}]) is not None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[1]",
        b'"temperature"',
        b'{"temperature":0',
        b'{"temperature":0,"x":1e999}',
        b'{"temperature":0,"x":"\\ud800"}',
        b'{"temperature":0,"x":NaN}',
        b'{"temperature":0,"x":' + b"[" * 100_000,
        b'{"temperature":0,"x":"\xff"}',
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_cannot_be_read_has_none(body: bytes) -> None:
    assert fingerprint(CHAT, body) is None


def test_a_name_that_stands_twice_means_its_last_value() -> None:
    assert fingerprint(CHAT, b'{"temperature":1,"temperature":0}') == fingerprint(CHAT, {"temperature": 0})


def test_half_a_surrogate_pair_has_none_from_whichever_reader() -> None:
    assert of(x="\ud800") is None


def test_it_is_no_burden_for_a_scan() -> None:
    body = json.dumps({**ASK, "messages": [{"role": "user", "content": "word " * 90}]}).encode()
    assert len(body) > 500
    best = min(_seconds(body) for _ in range(5))
    assert best < 1_000 / 15_000 / 2, f"1,000 lines of 500 bytes took {best:.3f} s: half of a scan's time is the most"


def _seconds(body: bytes) -> float:
    began = time.process_time()
    for _ in range(1_000):
        fingerprint(CHAT, body)
    return time.process_time() - began
