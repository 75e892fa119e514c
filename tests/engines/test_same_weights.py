"""The same weights, greedy, in float32, in vLLM, llama.cpp and transformers: one batch file through each, compared
line by line; and through llama.cpp once more by way of a `remote` that is another Penstock.

Where two part, the two candidates for that token are as good as equal in the model's eyes: rounding decides. After that
the texts have nothing in common, since each token is read by the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e.live import Platform, chat, said, up

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1_800)]

LINES = 100
TOKENS = 32
MOST_DOUBT = 0.01
"""How far apart, in logprob, two tokens may be for rounding to choose between them."""


def requests(*, logprobs: bool) -> list[dict[str, Any]]:
    """Chats of different lengths, some with a common beginning."""
    more: dict[str, Any] = {"logprobs": True, "top_logprobs": 2} if logprobs else {}
    return [
        chat(
            f"line-{n}",
            f"Question {n}: what does number {n * 37 % 101} mean" + " to a river" * (n % 9) + "?",
            temperature=0,
            max_tokens=TOKENS,
            **more,
        )
        for n in range(LINES)
    ]


@dataclass(frozen=True)
class Answer:
    """What one engine said to one line."""

    text: str
    prompt_tokens: int
    tokens: list[Any]
    """With their logprobs and those of the next best; empty if the engine does not tell them."""


def answers(platform: Platform, *, logprobs: bool = True) -> list[Answer]:
    """One batch of the file, to its end."""
    batch = platform.ended(platform.submit(requests(logprobs=logprobs)).id, 600)
    errors = platform.file(batch.error_file_id)
    assert (batch.status, errors) == ("completed", [])
    output = platform.file(batch.output_file_id)
    assert [line["custom_id"] for line in output] == [f"line-{n}" for n in range(LINES)]
    assert {line["response"]["body"]["model"] for line in output} == {"tiny"}
    return [_answer(line) for line in output]


def _answer(line: dict[str, Any]) -> Answer:
    body = line["response"]["body"]
    told = body["choices"][0].get("logprobs") or {}
    return Answer(said(line), body["usage"]["prompt_tokens"], told.get("content") or [])


@pytest.fixture(scope="module")
def of_vllm(short_dir: Path) -> list[Answer]:
    """vLLM's answers."""
    engine = ("--dtype=float32", "--max-model-len=512", "--max-num-seqs=16")
    flags = [f"--engine-arg={argument}" for argument in engine]
    with up(short_dir / "same-v", *flags, ready_seconds=900) as platform:
        return answers(platform)


@pytest.fixture(scope="module")
def llamacpp(short_dir: Path, tiny_gguf: Path) -> Iterator[Platform]:
    """A platform on llama.cpp, whose cache is float32 too."""
    engine = ("--threads=1", "--parallel=16", "--ctx-size=8192", "--cache-type-k=f32", "--cache-type-v=f32")
    flags = ["--engine=llamacpp", f"--model=tiny={tiny_gguf}", *(f"--engine-arg={argument}" for argument in engine)]
    with up(short_dir / "same-l", *flags, ready_seconds=600) as platform:
        yield platform


@pytest.fixture(scope="module")
def of_llamacpp(llamacpp: Platform) -> list[Answer]:
    """llama.cpp's answers."""
    return answers(llamacpp)


def parting(ours: Answer, theirs: Answer) -> int:
    """The place of the first token that differs."""
    pairs = enumerate(zip(ours.tokens, theirs.tokens, strict=False))
    return next((place for place, (one, other) in pairs if one["token"] != other["token"]), len(ours.tokens))


def doubt(answer: Answer, place: int) -> float:
    """How far the second best token was behind the best there, in logprob."""
    best, second = sorted((one["logprob"] for one in answer.tokens[place]["top_logprobs"]), reverse=True)[:2]
    return float(best - second)


def test_llamacpp_says_what_vllm_says_but_where_rounding_decides(
    of_vllm: list[Answer], of_llamacpp: list[Answer]
) -> None:
    pairs = list(zip(of_vllm, of_llamacpp, strict=True))
    assert all(one.prompt_tokens == other.prompt_tokens for one, other in pairs), "both read the same tokens"
    parted = [n for n, (one, other) in enumerate(pairs) if one.text != other.text]  # measured: 8 of 100
    print(f"{LINES - len(parted)} of {LINES} lines are equal")
    for n in parted:
        one, other = pairs[n]
        place = parting(one, other)
        there = [told.tokens[place]["token"] for told in (one, other) if place < len(told.tokens)]
        if any(not token or "\ufffd" in token for token in there):
            # Half a character: llama.cpp tells it with the next token, so the lists stand no longer side by side.
            print(f"line {n}: from token {place} of {TOKENS}, in the middle of a character")
            continue
        print(f"line {n}: from token {place} of {TOKENS}; vLLM's choice was {doubt(one, place):.6f} better there")
        assert doubt(one, place) < MOST_DOUBT
        assert doubt(other, place) < MOST_DOUBT
    assert len(parted) <= LINES // 5


def test_logprobs_are_the_same_numbers(of_vllm: list[Answer], of_llamacpp: list[Answer]) -> None:
    worst = max(
        abs(one["logprob"] - other["logprob"])
        for ours, theirs in zip(of_vllm, of_llamacpp, strict=True)
        for one, other in list(zip(ours.tokens, theirs.tokens, strict=False))[: parting(ours, theirs)]
    )
    print(f"logprobs differ by {worst:.6f} at most")
    assert worst < MOST_DOUBT


def test_a_name_that_is_not_served_reaches_no_engine_although_llamacpp_would_answer_it(llamacpp: Platform) -> None:
    call = llamacpp.http.post("/chat/completions", json={"model": "other", "messages": []})
    assert (call.status_code, call.json()["error"]["code"]) == (404, "model_not_found")
    batch = llamacpp.ended(llamacpp.submit([chat("one", "hello", model="other")]).id, 60)
    assert batch.status == "failed"
    assert batch.errors
    assert batch.errors.data
    assert batch.errors.data[0].code == "model_not_found"


def test_what_llamacpp_refuses_is_told_in_openais_words(llamacpp: Platform) -> None:
    long = llamacpp.http.post("/completions", json={"model": "tiny", "prompt": "water " * 2_000})
    assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")
    none = llamacpp.http.post("/embeddings", json={"model": "tiny", "input": "water"})
    assert (none.status_code, none.json()["error"]["code"]) == (404, "unsupported_endpoint")
    assert llamacpp.http.post("/rerank", json={"model": "tiny"}).json()["error"]["code"] == "unsupported_endpoint"


def test_a_batch_over_a_remote_that_is_another_penstock_says_the_same(
    short_dir: Path, llamacpp: Platform, of_llamacpp: list[Answer]
) -> None:
    batches = llamacpp.ask("select count(*) from batches")
    key = llamacpp.http.headers["authorization"].removeprefix("Bearer ")
    flags = ("--engine=remote", f"--model=tiny={llamacpp.url}/v1", "--engine-arg=--max-num-seqs=16")
    with up(short_dir / "same-r", *flags, ready_seconds=600, engine_key=key) as platform:
        over = answers(platform)
        calls = platform.sdk.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=4, temperature=0
        )
    assert calls.choices[0].message.content
    equal = sum(one.text == other.text for one, other in zip(over, of_llamacpp, strict=True))
    print(f"{equal} of {LINES} lines are equal")
    assert equal >= LINES - LINES // 10
    assert llamacpp.ask("select count(*) from batches") == batches, "there they were waiting calls"


@pytest.fixture(scope="module")
def transformers(short_dir: Path, tiny_model: Path) -> Iterator[Platform]:
    """A platform on `transformers serve`, float32."""
    flags = ("--engine=transformers", f"--model=tiny={tiny_model}", "--engine-arg=--dtype=float32")
    with up(short_dir / "same-t", *flags, ready_seconds=600) as platform:
        yield platform


def test_transformers_says_what_llamacpp_says_but_where_rounding_decides(
    transformers: Platform, of_llamacpp: list[Answer]
) -> None:
    theirs = answers(transformers, logprobs=False)
    assert [one.prompt_tokens for one in theirs] == [other.prompt_tokens for other in of_llamacpp]
    pairs = list(zip(theirs, of_llamacpp, strict=True))
    parted = [n for n, (one, other) in enumerate(pairs) if one.text != other.text]  # measured: 11 of 100
    print(f"{LINES - len(parted)} of {LINES} lines are equal")
    for n in parted:
        one, other = pairs[n]
        if one.text.replace("\ufffd", "") == other.text.replace("\ufffd", ""):
            print(f"line {n}: equal but for half characters, which llama.cpp may leave out")
            continue
        tokens = [told["token"] for told in other.tokens]
        place = next(at for at in range(len(tokens)) if not one.text.startswith("".join(tokens[: at + 1])))
        if not tokens[place] or "\ufffd" in tokens[place]:  # half a character, which is told with the next token
            print(f"line {n}: from token {place} of {TOKENS}, in the middle of a character")
            continue
        better = doubt(other, place)
        print(f"line {n}: from token {place} of {TOKENS}; llama.cpp's choice was {better:.6f} better there")
        assert better < MOST_DOUBT
    assert len(parted) <= LINES // 5


def test_lines_that_transformers_would_answer_otherwise_end_with_a_word_for_it(transformers: Platform) -> None:
    lines = [
        chat("many", "hello", n=2, max_tokens=4),
        chat("drawn", "hello", temperature=0.8, max_tokens=4),
        chat("odd", "hello", top_k=3, max_tokens=4),
        chat("fine", "hello", n=1, ignore_eos=True, max_tokens=4),
    ]
    batch = transformers.ended(transformers.submit(lines).id, 120)
    assert [line["custom_id"] for line in transformers.file(batch.output_file_id)] == ["fine"]
    errors = {line["custom_id"]: line["response"] for line in transformers.file(batch.error_file_id)}
    assert {name: (one["status_code"], one["body"]["error"]["param"]) for name, one in errors.items()} == {
        "many": (400, "n"),
        "drawn": (400, "temperature"),
        "odd": (422, None),
    }
    assert "top_k" in errors["odd"]["body"]["error"]["message"]


@pytest.fixture(scope="module")
def embedding(short_dir: Path) -> Iterator[Platform]:
    """A platform with the tiny model that embeds, on the real vLLM."""
    with up(short_dir / "same-e", "--model=tiny-embed", ready_seconds=900) as platform:
        yield platform


def test_embeddings_on_the_real_vllm_are_the_same_in_a_batch_and_in_a_call(embedding: Platform) -> None:
    texts = ["The river carries water.", "The river carries the water.", "A teacher writes."]
    url = "/v1/embeddings"
    lines = [
        {"custom_id": f"line-{n}", "method": "POST", "url": url, "body": {"model": "tiny-embed", "input": text}}
        for n, text in enumerate(texts)
    ]
    batch = embedding.ended(embedding.submit(lines, endpoint=url).id, 120)
    vectors = [line["response"]["body"]["data"][0]["embedding"] for line in embedding.file(batch.output_file_id)]
    called = embedding.sdk.embeddings.create(model="tiny-embed", input=texts, encoding_format="float")
    for vector, one in zip(vectors, called.data, strict=True):
        assert vector == pytest.approx(one.embedding, abs=1e-5)
    first, alike, other = vectors
    assert len(first) == 128
    assert _product(first, first) == pytest.approx(1.0, abs=1e-4)
    assert _product(first, alike) > _product(first, other)


def test_packed_embeddings_on_the_real_vllm_are_told_and_counted_as_alone_and_one_too_long_costs_no_other(
    embedding: Platform,
) -> None:
    texts = [f"Number {n} of the mill" + " carries water" * (n % 23) + "." for n in range(90)]
    texts[40] = "river " * 2_000
    url = "/v1/embeddings"
    lines = [
        {"custom_id": f"{n}", "method": "POST", "url": url, "body": {"model": "tiny-embed", "input": text}}
        for n, text in enumerate(texts)
    ]
    batch = embedding.ended(embedding.submit(lines, endpoint=url).id, 120)
    output, errors = embedding.file(batch.output_file_id), embedding.file(batch.error_file_id)
    assert [line["custom_id"] for line in output] == [f"{n}" for n in range(90) if n != 40]
    assert [(line["custom_id"], line["response"]["status_code"]) for line in errors] == [("40", 400)]
    assert len({line["response"]["request_id"].partition("-")[0] for line in output}) < 45
    for line in output:
        told = line["response"]["body"]
        called = embedding.http.post("/embeddings", json=lines[int(line["custom_id"])]["body"]).json()
        assert told.keys() == called.keys()
        assert told["usage"] == called["usage"]
        assert _product(told["data"][0]["embedding"], called["data"][0]["embedding"]) > 0.9999
        assert [{**one, "embedding": None} for one in told["data"]] == [
            {**one, "embedding": None} for one in called["data"]
        ]


def _product(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
