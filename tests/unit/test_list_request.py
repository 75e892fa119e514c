"""Requests of one text or pair become a list, and its answer comes apart into what each would have been told alone."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from penstock.formats import list_request
from penstock.formats.list_request import EMBEDDINGS, SCORE


def body(text: Any, **more: Any) -> bytes:
    return json.dumps({"model": "m", "input": text, **more}).encode()


def answer(vectors: list[Any], total: int, **usage: Any) -> dict[str, Any]:
    data = [{"index": place, "object": "embedding", "embedding": one} for place, one in enumerate(vectors)]
    told = {"prompt_tokens": total, "total_tokens": total, "completion_tokens": 0, "prompt_tokens_details": None}
    return {"id": "embd-7", "object": "list", "created": 3, "model": "m", "data": data, "usage": told | usage}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"encoding_format": "float"},
        {"encoding_format": "base64", "dimensions": 64},
        {"user": "u", "use_activation": False},
    ],
)
def test_a_request_of_one_text_can_stand_in_a_list(more: dict[str, Any]) -> None:
    found = list_request.read(EMBEDDINGS, body("Grüße", **more))
    assert found is not None
    assert found.texts == ("Grüße",)


@pytest.mark.parametrize(
    ("text", "more"),
    [
        (["a", "b"], {}),
        (["a"], {}),
        ([1, 2, 3], {}),
        ([[1, 2], [3]], {}),
        ([{"role": "user", "content": "a"}], {}),
        ("", {}),
        (None, {}),
        ("a", {"encoding_format": "bytes"}),
        ("a", {"truncate_prompt_tokens": 8}),
        ("a", {"add_special_tokens": False}),
        ("a", {"encoding_format": "base64", "embed_dtype": "float16"}),
        ("a", {"endianness": "big"}),
        ("a", {"messages": []}),
    ],
)
def test_lists_tokens_and_what_may_count_otherwise_go_alone(text: Any, more: dict[str, Any]) -> None:
    assert list_request.read(EMBEDDINGS, body(text, **more)) is None


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"model":"m"}', b'{"model":"m","input":"\\ud800"}', b'{"input":"\xff"}'])
def test_what_cannot_be_read_goes_alone(raw: bytes) -> None:
    assert list_request.read(EMBEDDINGS, raw) is None


def test_other_endpoints_go_alone() -> None:
    assert list_request.read("/v1/completions", body("a")) is None


def test_only_what_is_asked_alike_is_of_one_kind() -> None:
    def kind(**more: Any) -> bytes:
        found = list_request.read(EMBEDDINGS, body("a", **more))
        assert found is not None
        return found.kind

    kinds = [kind(), kind(dimensions=64), kind(dimensions=32), kind(encoding_format="base64"), kind(user="u")]
    kinds += [kind(priority=1), kind(priority=2), kind(cache_salt="one"), kind(cache_salt="two")]
    assert len(set(kinds)) == len(kinds)
    other = list_request.read(EMBEDDINGS, b'{"dimensions":64,"input":"b","model":"m"}')
    assert other is not None
    assert other.kind == kinds[1]


def test_inputs_stand_in_the_list_as_they_were_written() -> None:
    whole = list_request.joined([b'{"model":"m","input":"\\u00e9 1","dimensions":4}', body("z", dimensions=4)])
    assert rb'["\u00e9 1","z"]' in whole
    asked = {"model": "m", "input": ["é 1", "z"], "dimensions": 4, "encoding_format": "base64"}
    assert json.loads(whole) == asked


def test_each_is_told_what_it_would_have_been_told_alone() -> None:
    vectors = [[0.5, -0.25], [0.1, 1e-9]]
    whole = answer([base64.b64encode(struct.pack("2f", *vector)).decode() for vector in vectors], 9)
    parts = list_request.apart(json.dumps(whole).encode(), [(4,), (5,)], in_base64=False)
    assert parts is not None
    first, second = map(json.loads, parts)
    assert first == answer([[0.5, -0.25]], 4) | {"id": "embd-7-0"}
    assert struct.pack("2f", *second["data"][0]["embedding"]) == struct.pack("2f", *vectors[1])
    assert (second["id"], second["usage"]["total_tokens"], list(second)) == ("embd-7-1", 5, list(whole))
    parts = list_request.apart(json.dumps(whole).encode(), [(4,), (5,)], in_base64=True)
    assert parts is not None
    assert json.loads(parts[1]) == answer([whole["data"][1]["embedding"]], 5) | {"id": "embd-7-1"}


def test_numbers_that_an_engine_wrote_itself_stay_as_they_are() -> None:
    parts = list_request.apart(json.dumps(answer([[0.1], [1e-07]], 9)).encode(), [(4,), (5,)], in_base64=False)
    assert parts is not None
    assert b"[1e-07]" in parts[1]


@pytest.mark.parametrize(
    "other",
    [
        {"usage": None},
        {"usage": {"prompt_tokens": 10, "total_tokens": 10}},
        {"usage": {"prompt_tokens": 9, "total_tokens": 11}},
        {"usage": {"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 1}},
        {"usage": {"prompt_tokens": 9, "total_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}},
        {"data": answer([[1.0]], 9)["data"]},
        {"data": answer([[1.0]] * 3, 9)["data"]},
        {"data": answer([[1.0], [2.0]], 9)["data"][::-1]},
        {"data": [{"embedding": [1.0]}, {"embedding": [2.0]}]},
        {"data": [{"index": 0, "embedding": "AAAA="}, {"index": 1, "embedding": [2.0]}]},
        {"data": [{"index": 0, "embedding": 7}, {"index": 1, "embedding": [2.0]}]},
        {"data": [{"index": 0}, {"index": 1}]},
        {"data": None},
        {"id": None},
    ],
)
def test_what_cannot_be_told_of_each_is_told_of_none(other: dict[str, Any]) -> None:
    whole = answer([[1.0], [2.0]], 9)
    assert list_request.apart(json.dumps(whole).encode(), [(4,), (5,)], in_base64=False) is not None
    assert list_request.apart(json.dumps(whole | other).encode(), [(4,), (5,)], in_base64=False) is None


def test_an_answer_that_is_no_json_is_not_taken_apart() -> None:
    assert list_request.apart(b"<html>", [(4,), (5,)], in_base64=False) is None


def pair(first: Any, second: Any, names: tuple[str, str] = ("text_1", "text_2"), **more: Any) -> bytes:
    return json.dumps({"model": "m", names[0]: first, names[1]: second, **more}).encode()


@pytest.mark.parametrize(
    "names", [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")]
)
@pytest.mark.parametrize("url", [SCORE, "/score"])
def test_pairs_stand_in_two_lists_whatever_they_are_called(url: str, names: tuple[str, str]) -> None:
    bodies = [pair("a", "b", names, use_activation=False), pair("c", "d", names, use_activation=False)]
    found = [list_request.read(url, one) for one in bodies]
    assert [one and one.texts for one in found] == [("a", "b"), ("c", "d")]
    assert len({one.kind for one in found if one}) == 1
    assert json.loads(list_request.joined(bodies)) == {
        "model": "m",
        "use_activation": False,
        names[0]: ["a", "c"],
        names[1]: ["b", "d"],
    }


def test_pairs_of_other_names_are_of_another_kind() -> None:
    one = list_request.read(SCORE, pair("a", "b"))
    other = list_request.read(SCORE, pair("a", "b", ("queries", "documents")))
    assert one is not None
    assert other is not None
    assert one.kind != other.kind


@pytest.mark.parametrize(
    ("first", "second", "more"),
    [
        ("a", ["b", "c"], {}),
        (["a"], "b", {}),
        ("a", "", {}),
        ("a", {"content": []}, {}),
        ("a", "b", {"queries": "q"}),
        ("a", "b", {"truncate_prompt_tokens": 8}),
        ("a", "b", {"max_tokens_per_doc": 8}),
        ("a", "b", {"instruction": "i"}),
        ("a", "b", {"encoding_format": "base64"}),
    ],
)
def test_pairs_of_more_and_what_may_count_otherwise_go_alone(first: Any, second: Any, more: dict[str, Any]) -> None:
    assert list_request.read(SCORE, pair(first, second, **more)) is None


@pytest.mark.parametrize("right", [0, 1])
def test_a_pair_is_told_the_tokens_that_its_engine_counts(right: int) -> None:
    tokens = [(4, 6), (5, 7)]
    total = sum(one[right] for one in tokens)
    data = [{"index": place, "object": "score", "score": score} for place, score in enumerate((0.25, 1e-07))]
    usage = {"prompt_tokens": total, "total_tokens": total, "completion_tokens": 0, "prompt_tokens_details": None}
    whole = {"id": "score-7", "object": "list", "created": 3, "model": "m", "data": data, "usage": usage}
    parts = list_request.apart(json.dumps(whole).encode(), tokens, in_base64=False)
    assert parts is not None
    told = list(map(json.loads, parts))
    assert [one["data"] for one in told] == [[data[0]], [data[1] | {"index": 0}]]
    assert [one["usage"]["prompt_tokens"] for one in told] == [one[right] for one in tokens]
    assert b"1e-07" in parts[1]
    usage["prompt_tokens"] = usage["total_tokens"] = 10
    assert list_request.apart(json.dumps(whole).encode(), tokens, in_base64=False) is None


def test_where_two_ways_to_count_have_one_sum_only_what_they_agree_on_is_told() -> None:
    data = [{"index": place, "object": "score", "score": 0.5} for place in range(3)]
    whole = {"id": "s", "data": data, "usage": {"prompt_tokens": 15, "total_tokens": 15}}
    parts = list_request.apart(json.dumps(whole).encode(), [(9, 5, 6), (9, 5, 4), (9, 5, 5)], in_base64=False)
    assert parts is not None
    assert parts[:2] == [None, None]
    assert parts[2] is not None
    assert json.loads(parts[2])["usage"]["prompt_tokens"] == 5
