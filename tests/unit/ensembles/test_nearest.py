"""Classifiers that embed: what one may be, what it is asked, and which label the vectors of an answer say."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.api_errors import BadRequest
from penstock.domain.ensembles.classifier import EMBEDS_CHARS, MOST_TEXTS
from penstock.domain.ensembles.definition import read
from penstock.domain.ensembles.ensemble import ClassifiedBy, Classifier, chosen
from penstock.domain.inference_endpoints import EMBEDDINGS
from penstock.formats.answers.vectors import similarities, vectors
from penstock.formats.canonical import fingerprint
from penstock.formats.list_request import read as read_one_input
from penstock.service.ensembles import askable, classifying, nearest
from penstock.service.ensembles.fold import QUORUM, Fold, MemberAnswer

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
BY_VECTORS: dict[str, Any] = {
    "model": "minilm",
    "by": "embeddings",
    "labels": ["billing", "code", "other"],
    "examples": {"code": ["Why does my loop never end?", "A test fails"], "billing": ["Where is my bill?"]},
}
WRITTEN: dict[str, Any] = {
    "name": "desk",
    "kind": "route",
    "members": [{"model": "bills"}, {"model": "coder"}, {"model": "small"}],
    "classifier": BY_VECTORS,
    "rules": [{"when": {"label": "billing"}, "use": "bills"}, {"when": {"label": "code"}, "use": "coder"}],
    "default": "small",
}
DESK = read(WRITTEN)
CLASSIFIER = 3
TEXTS = ["Where is my bill?", "Why does my loop never end?", "A test fails", "other"]
USAGE = {"prompt_tokens": 9, "total_tokens": 9}
Vector = Sequence[float]


def classifier(**changes: Any) -> Classifier:
    found = read(WRITTEN | {"classifier": BY_VECTORS | changes}).classifier
    assert found
    return found


def answer(each: Sequence[Vector], *, in_base64: bool = False, **more: Any) -> bytes:
    def shown(vector: Vector) -> Any:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if in_base64 else list(vector)

    data = [{"object": "embedding", "index": place, "embedding": shown(one)} for place, one in enumerate(each)]
    return json.dumps({"id": "embd-1", "object": "list", "data": data[::-1], "usage": USAGE, **more}).encode()


# What one may be.


def test_a_label_without_examples_stands_for_itself_and_what_is_left_out_has_a_default() -> None:
    found = classifier()
    assert (found.by, found.prompt, found.reads_chars) == (ClassifiedBy.EMBEDDINGS, "", EMBEDS_CHARS)
    assert found.texts == (("billing", TEXTS[0]), ("code", TEXTS[1]), ("code", TEXTS[2]), ("other", "other"))
    assert found.member.params == {"encoding_format": "base64"}
    params = classifier(params={"encoding_format": "float", "dimensions": 64}).member.params
    assert params == {"encoding_format": "float", "dimensions": 64}
    assert [text for _, text in classifier(examples=None).texts] == BY_VECTORS["labels"]
    assert read(WRITTEN | {"classifier": {"model": "m", "labels": ["code", "billing"], "by": "chat"}}).classifier == (
        read(WRITTEN | {"classifier": {"model": "m", "labels": ["code", "billing"]}}).classifier
    )


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"by": "vectors"}, "by", "one of chat, embeddings"),
        ({"prompt": "{request}"}, "prompt", "has no prompt"),
        ({"by": "chat"}, "examples", "Only a classifier with 'by: embeddings' has examples"),
        ({"params": {"encoding_format": "bytes"}}, "params.encoding_format", "base64 or float"),
        ({"params": {"encoding_format": None}}, "params.encoding_format", "base64 or float"),
        ({"params": {"input": []}}, "params.input", "can't set"),
        ({"reads_chars": 1}, "reads_chars", "from 100"),
        ({"examples": ["x"]}, "examples", "lists of texts, by their labels"),
        ({"examples": {"cook": ["x"]}}, "examples.cook", "'cook' is no label; there are: billing, code, other"),
        ({"examples": {"code": "x"}}, "examples.code", "a list of 1 to 200"),
        ({"examples": {"code": []}}, "examples.code", "a list of 1 to 200"),
        *(({"examples": {"code": ["x", text]}}, "examples.code[1]", "a text of 1 to 2,000 characters")
          for text in ("", " \n", "x" * 2_001, "\0", 1, None)),
        ({"examples": {"code": [f"{n}" for n in range(MOST_TEXTS - 1)]}}, "examples", "have 200 texts at most"),
        ({"examples": {"code": ["x"], "other": ["y", "x"]}}, "examples", "'x' stands for 'code' and for 'other'"),
        ({"examples": {"code": ["billing"]}}, "examples", "'billing' stands for 'billing' and for 'code'"),
    ],
)  # fmt: skip
def test_what_can_be_no_such_classifier_is_refused_with_the_place_and_the_reason(
    changes: Any, param: str, words: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        classifier(**changes)
    assert (refused.value.param, words in refused.value.message) == (f"classifier.{param}", True), refused.value


def test_as_many_texts_as_there_may_be_are_taken() -> None:
    assert len(classifier(examples={"code": [f"{n}" for n in range(MOST_TEXTS - 2)]}).texts) == MOST_TEXTS


# What it is asked.


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES])
def test_it_is_asked_for_the_vectors_of_the_last_user_message_and_of_each_text(endpoint: str) -> None:
    asked = chosen(1, 1, DESK, DESK.asked[CLASSIFIER])
    assert (asked.endpoint(endpoint), chosen(1, 1, DESK, DESK.asked[0]).endpoint(endpoint)) == (EMBEDDINGS, endpoint)
    messages = [{"role": "user", "content": "My bill"}, {"role": "tool", "content": "7"}]
    more = {"tools": [{}], "stream": True, "max_tokens": 3, "temperature": 1, "service_tier": "flex", "user": "u"}
    name = "input" if endpoint == RESPONSES else "messages"
    made = classifying.asked(asked, endpoint, json.dumps({"model": "desk", name: messages, **more}).encode())
    assert json.loads(made) == {
        "model": "desk", "input": ["My bill", *TEXTS], "encoding_format": "base64", "service_tier": "flex", "user": "u",
    }  # fmt: skip
    assert read_one_input(EMBEDDINGS, made) is None, "it goes alone, not in a list of others' inputs"
    assert fingerprint(asked.endpoint(endpoint), made) is not None, "it has one answer"
    long = json.loads(classifying.asked(asked, "/v1/completions", json.dumps({"prompt": "x" * 9_000}).encode()))
    assert long["input"][0] == "x" * EMBEDS_CHARS


def test_what_no_text_answers_needs_no_label() -> None:
    for endpoint in (EMBEDDINGS, "/v1/score", "/v1/rerank"):
        fault = askable.fault(DESK, endpoint, b"{}")
        assert fault, endpoint
        assert fault[0] == askable.NEEDS_TEXT
    assert askable.fault(DESK, CHAT, b"{}") is None


# What its vectors say.


def heard(body: bytes, **changes: Any) -> str | None:
    return classifying.heard(classifier(**changes), body)


@pytest.mark.parametrize("in_base64", [True, False])
def test_the_label_is_that_of_the_text_that_is_nearest_by_cosine(in_base64: bool) -> None:
    def said(*each: Vector) -> str | None:
        return heard(answer(each, in_base64=in_base64))

    assert said((1, 0), (9, 9), (0, 1), (0.1, 0.01), (-1, 0)) == "code", "however long its vector is"
    assert said((1, 0), (1, 1), (0, 1), (0, 1), (0, 1)) == "billing"
    assert said((1, 0), (-1, 0.1), (-1, 0), (-1, 0), (-1, 0.2)) == "other", "all are far"
    assert said((1, 0), (0, 2), (0, 1), (0, -1), (0, 1)) == "billing", "of those that are as near the first label"
    assert said((1, 0), (0, 1), (0, 1), (3, 4), (3, 4)) == "code"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"choices": [{"message": {"content": "code"}}]}',
        b'{"data": {}}',
        b'{"data": [{"index": 0, "embedding": "not base64"}]}',
        b'{"similarities": [1]}',
        b'{"similarities": {"code": 1.0}}',
        answer([(1, 0)] * 4),
        answer([(1, 0)] * 6),
        answer([(1, 0)] * 5).replace(b'"index": 4', b'"index": 5'),
        answer([(1, 0)] * 4 + [(1, 0, 0)]),
        answer([(0, 0)] + [(1, 0)] * 4),
        answer([(1, 0)] * 4 + [(0, 0)]),
        answer([()] * 5),
        answer([(math.nan, 0)] * 5, in_base64=True),
        answer([(math.inf, 0)] * 5, in_base64=True),
    ],
)  # fmt: skip
def test_what_has_no_such_vectors_says_no_label(body: bytes) -> None:
    assert heard(body) is None
    assert heard(nearest.kept(classifier(), body)) is None


def test_an_answer_is_kept_without_its_vectors_and_says_the_same() -> None:
    body = answer([(1, 0), (0, 1), (0, 1), (3, 4), (1, 1)], model="minilm")
    kept = nearest.kept(classifier(), body)
    told = json.loads(kept)
    assert told.pop("similarities") == pytest.approx({"billing": 0, "code": 0.6, "other": math.sqrt(0.5)})
    assert told == {"id": "embd-1", "object": "list", "model": "minilm", "usage": USAGE}
    assert (heard(kept), heard(body)) == ("other", "other")
    assert nearest.kept(classifier(), kept) == kept
    refused = b'{"error": {"message": "no", "code": 400}}'
    assert nearest.kept(classifier(), refused) == refused


_NUMBER = st.floats(-1e3, 1e3, width=32).filter(lambda number: number == 0 or abs(number) > 1e-3)
_VECTOR = st.lists(_NUMBER, min_size=3, max_size=3).filter(any)


@settings(max_examples=100, deadline=None)
@given(st.lists(_VECTOR, min_size=5, max_size=5), st.floats(1e-3, 1e3))
def test_the_nearest_is_the_same_however_vectors_are_written_or_stretched(each: list[Vector], by: float) -> None:
    def cosine(one: Vector, other: Vector) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))

    first, *others = vectors(answer(each)) or []
    found = similarities(first, others)
    assert found == pytest.approx([cosine(each[0], one) for one in each[1:]], abs=1e-6)
    assert similarities(first, [one * by for one in others]) == pytest.approx(found, abs=1e-9)
    assert found
    assert all(abs(one) <= 1 + 1e-9 for one in found)
    said = heard(answer(each))
    assert said == heard(answer(each, in_base64=True)), "they are 32-bit floats"
    near = {"billing": found[0], "code": max(found[1:3]), "other": found[3]}
    assert said is not None
    assert near[said] == max(near.values())
    assert heard(answer([each[0]] * 5)) == "billing", "equal vectors are equally near"
    assert json.loads(nearest.kept(classifier(), answer(each)))["similarities"] == near


# Where it leads.


def test_the_usage_of_vectors_is_counted_as_the_endpoint_calls_it() -> None:
    said = MemberAnswer("answered", answer([(1, 0), (0, 1), (1, 0), (0, 1), (0, 1)]), tokens=9)
    called = {CHAT: ("prompt_tokens", "completion_tokens"), RESPONSES: ("input_tokens", "output_tokens")}
    for endpoint, names in called.items():
        usage = dict(zip((*names, "total_tokens"), (4, 2, 6), strict=True))
        wrote = MemberAnswer("answered", json.dumps({"usage": usage}).encode(), tokens=6)
        folded = Fold(DESK, 1).fold({CLASSIFIER: said, 1: wrote}, endpoint=endpoint, request=b"{}")
        assert folded.body
        told = json.loads(folded.body)
        assert told["usage"] == dict(zip((*names, "total_tokens"), (13, 2, 15), strict=True))
        assert told["penstock"]["classifier"] == {
            "model": "classifier", "outcome": "answered", "tokens": 9, "ms": 0, "label": "code",
        }  # fmt: skip


def test_without_vectors_it_is_as_with_an_answer_that_names_no_label() -> None:
    nothing = MemberAnswer("answered", answer([(1, 0)]))
    assert Fold(DESK, 1).fold({CLASSIFIER: nothing}, request=b"{}").verdict.asks == (2,)
    strict = Fold(read(WRITTEN | {"on_error": "fail"}), 1).fold({CLASSIFIER: nothing}, request=b"{}")
    assert strict.error == (QUORUM, "The classifier of the ensemble 'desk' named none of its labels.")
