"""Numbers: a combine without a judge makes one vector, score or rank of its members'."""

from __future__ import annotations

import base64
import json
import math
import struct
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.api_errors import BadRequest
from penstock.domain.ensembles.definition import read
from penstock.domain.ensembles.ensemble import Method, chosen
from penstock.domain.ensembles.mixing import mixed
from penstock.domain.ensembles.verdict import EnsembleVerdict, Heard, judge
from penstock.formats.answers.mixed_answer import mixed_answer
from penstock.formats.routed_request import as_asked, top_n
from penstock.service.ensembles import askable
from penstock.service.ensembles.fold import MISMATCH, Fold, MemberAnswer

BASE: dict[str, Any] = {"name": "mix", "kind": "combine", "members": [{"model": "a", "weight": 3}, {"model": "b"}]}
MIX = BASE | {"method": "mean"}
EMBED, SCORE, RERANK, CHAT = "/v1/embeddings", "/v1/score", "/v1/rerank", "/v1/chat/completions"
_SCORES = st.lists(st.floats(-5, 5, width=16), min_size=3, max_size=3).map(lambda some: dict(enumerate(some)))


def test_a_combine_has_a_judge_or_a_method() -> None:
    found = read(MIX)
    assert (found.method, found.judge, len(found.asked)) == (Method.MEAN, None, 2)
    for written, param in (
        (BASE, "judge"),
        (MIX | {"judge": {"model": "big"}}, "method"),
        (MIX | {"method": "median"}, "method"),
        (MIX | {"kind": "best_of"}, "method"),
    ):
        with pytest.raises(BadRequest) as refused:
            read(written)
        assert refused.value.param == param


def test_all_that_answered_are_the_answer() -> None:
    said, failed = Heard(True), Heard(False)
    assert judge(read(MIX), {1: said}) == EnsembleVerdict()
    assert judge(read(MIX), {1: said, 0: said}) == EnsembleVerdict(True, 0)
    assert judge(read(MIX), {1: said, 0: failed}) == EnsembleVerdict(True, 1)
    for more in ({"min_responses": 2}, {"on_error": "fail"}):
        assert judge(read(MIX | more), {1: said, 0: failed}) == EnsembleVerdict(True)


def test_it_answers_what_has_numbers_and_no_part_of_a_ranking() -> None:
    def fault(method: str, endpoint: str, body: bytes = b"{}") -> str | None:
        found = askable.fault(read(MIX | {"method": method}), endpoint, body)
        return None if found is None else found[0]

    assert [fault("mean", one) for one in (EMBED, SCORE, RERANK)] == [None] * 3
    assert [fault("reciprocal_rank", one) for one in (SCORE, RERANK)] == [None] * 2
    assert fault("reciprocal_rank", EMBED) == fault("mean", CHAT) == fault("mean", "/tokenize") == (
        "ensemble_needs_numbers"
    )  # fmt: skip
    assert fault("mean", RERANK, b'{"top_n":3}') is fault("mean", RERANK, b"[") is None


def test_members_rank_all_documents_and_the_answer_has_the_first_few_that_are_wanted() -> None:
    definition = read(MIX)
    member = chosen(1, 1, definition, definition.members[0])
    sent = b'{"query":"q","top_n":2,"documents":[1e0]}'
    assert as_asked(sent, RERANK, member) == b'{"query":"q","documents":[1e0]}', "else as it was written"
    assert as_asked(sent, RERANK, replace(member, ranks_all=False)) == sent, "another kind's member cuts itself"
    for odd in (b'{"top_n":0}', b'{"top_n":-1}', b'{"top_n":true}', b'{"top_n":"2"}', b'{"top_n":null}', b"[", b"{}"):
        assert (top_n(odd), as_asked(odd, RERANK, member)) == (None, odd), "what its engine makes of that, it says"
    answers = {place: MemberAnswer("answered", body(RERANK, *scores)) for place, scores in enumerate([(1, 3, 2)] * 2)}
    for wanted, places in ((1, [1]), (2, [1, 2]), (9, [1, 2, 0]), (0, [1, 2, 0])):
        made = Fold(definition, 1).fold(answers, endpoint=RERANK, request=b'{"top_n":%d}' % wanted).body
        assert made is not None
        found = json.loads(made)
        assert [one["index"] for one in found["results"]] == places
        assert found["usage"]["total_tokens"] == 6, "of all documents, whatever is wanted"


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(Method), st.lists(st.tuples(st.integers(1, 9), _SCORES), min_size=1, max_size=4),
       st.fractions(min_value=Fraction(1, 1000), max_value=1000), st.randoms())  # fmt: skip
def test_weights_scale_and_neither_the_order_of_members_nor_of_things_matters(
    method: Method, members: list[tuple[int, dict[int, float]]], factor: Fraction, chance: Any
) -> None:
    weights, scores = [weight for weight, _ in members], [one for _, one in members]
    found = mixed(method, weights, scores)
    assert mixed(method, [weight * factor for weight in weights], scores) == found
    turned = [dict(reversed(one.items())) for one in scores]
    assert mixed(method, weights, turned) == found
    chance.shuffle(members)
    other = mixed(method, [weight for weight, _ in members], [one for _, one in members])
    assert other == pytest.approx(found)
    if method is Method.MEAN:
        for index, score in found.items():
            each = [one[index] for one in scores]
            assert min(each) - 1e-9 <= score <= max(each) + 1e-9
    elif len(members) == 1:
        assert sorted(found, key=lambda index: -found[index]) == sorted(
            scores[0], key=lambda index: (-scores[0][index], index)
        ), "one alone keeps its order"


def test_ranks_are_fused_as_the_formula_says() -> None:
    found = mixed(Method.RECIPROCAL_RANK, [3, 1], [{0: 0.9, 1: 0.5, 2: 0.1}, {0: -8.0, 1: 40.0, 2: 3.0}])
    assert found == pytest.approx({0: 0.75 / 61 + 0.25 / 63, 1: 0.75 / 62 + 0.25 / 61, 2: 0.75 / 63 + 0.25 / 62})


def body(endpoint: str, *numbers: Any) -> bytes:
    items = [{"index": index, "embedding" if endpoint == EMBED else "score": one} for index, one in enumerate(numbers)]
    if endpoint == RERANK:
        items = [{"index": i, "document": {"text": f"t{i}"}, "relevance_score": one} for i, one in enumerate(numbers)]
        items.sort(key=lambda item: -item["relevance_score"])
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return json.dumps({"id": "x", "results" if endpoint == RERANK else "data": items, "usage": usage}).encode()


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def test_vectors_are_their_weighted_mean_of_length_one_in_the_shape_that_was_asked_for() -> None:
    bodies = [body(EMBED, [1, 0, 0], [0, 0, 2]), body(EMBED, [0, 1, 0], [0, 0, 1])]
    made = json.loads(mixed_answer(EMBED, Method.MEAN, [3, 1], bodies))
    assert made["id"] == "x"
    assert made["data"][0]["embedding"] == pytest.approx([3 / math.sqrt(10), 1 / math.sqrt(10), 0])
    assert made["data"][1]["embedding"] == [0, 0, 1]
    bodies = [body(EMBED, packed(1, 0)), body(EMBED, packed(0, 1))]
    [one] = json.loads(mixed_answer(EMBED, Method.MEAN, [1, 1], bodies))["data"]
    assert struct.unpack("<2f", base64.b64decode(one["embedding"])) == pytest.approx([math.sqrt(0.5)] * 2)
    [alone] = json.loads(mixed_answer(EMBED, Method.MEAN, [5], [body(EMBED, [3, 4])]))["data"]
    assert alone["embedding"] == pytest.approx([0.6, 0.8])


def test_scores_keep_their_places_and_ranks_are_sorted_anew() -> None:
    made = json.loads(mixed_answer(SCORE, Method.MEAN, [3, 1], [body(SCORE, 0.25, 0), body(SCORE, 0.75, 1)]))
    assert [(one["index"], one["score"]) for one in made["data"]] == [(0, 0.375), (1, 0.25)]
    bodies = [body(RERANK, 0.5, 0.25, 0), body(RERANK, 0, 1, 0.5)]
    made = json.loads(mixed_answer(RERANK, Method.MEAN, [1, 1], bodies))
    assert [(one["index"], one["document"]["text"], one["relevance_score"]) for one in made["results"]] == [
        (1, "t1", 0.625), (0, "t0", 0.25), (2, "t2", 0.25),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("endpoint", "other", "words"),
    [
        (EMBED, body(EMBED, [1, 0, 0]), "2 and 3 dimensions"),
        (EMBED, body(EMBED, [1, 0], [1, 0]), "different numbers"),
        (EMBED, body(EMBED, [-1, 0]), "no mean with a direction"),
        (EMBED, body(EMBED, "A"), "no such numbers"),
        (EMBED, body(EMBED, packed(1)[:-4]), "no such numbers"),
        (EMBED, body(EMBED, [["x"]]), "no such numbers"),
        (EMBED, body(EMBED, ["x", "y"]), "no such numbers"),
        (EMBED, body(EMBED, None), "no such numbers"),
        (EMBED, b'{"data":7}', "no such numbers"),
        (EMBED, b"{}", "no such numbers"),
        (EMBED, b"[" * 9_999, "no such numbers"),
        (SCORE, body(SCORE, 1, 2), "score different things"),
        (SCORE, body(SCORE, "x"), "no such numbers"),
        (RERANK, body(RERANK, 1, 2), "score different things"),
    ],
)
def test_what_does_not_go_together_is_said(endpoint: str, other: bytes, words: str) -> None:
    first = body(endpoint, [1, 0] if endpoint == EMBED else 1)
    for bodies in ([first, other], [other, first]):
        with pytest.raises(ValueError, match=words):
            mixed_answer(endpoint, Method.MEAN, [1, 1], bodies)


def test_a_folded_answer_is_of_all_that_answered_with_their_usage_and_no_winner() -> None:
    answers = {0: MemberAnswer("answered", body(SCORE, 1.0)), 1: MemberAnswer("answered", body(SCORE, 0.0))}
    fold = Fold(read(MIX), 2)
    made = fold.fold(answers, endpoint=SCORE).body
    assert made is not None
    found = json.loads(made)
    assert (found["data"][0]["score"], found["usage"]["total_tokens"]) == (0.75, 6)
    assert found["penstock"].keys() == {"ensemble", "version", "kind", "members"}
    left = fold.fold(answers | {0: MemberAnswer("failed", code="request_timeout")}, endpoint=SCORE).body
    assert left is not None
    assert json.loads(left)["data"][0]["score"] == 0.0
    error = fold.fold(answers | {0: MemberAnswer("answered", body(SCORE, 1, 2))}, endpoint=SCORE).error
    assert error == (MISMATCH, "Answers of the ensemble 'mix' don't go together: they score different things.")
