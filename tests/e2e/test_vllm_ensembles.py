"""Ensembles on the real vLLM: two tiny models of different seeds, each on an engine of its own.

A vote of five is counted again here, of what each member wrote; what a judge named or wrote is read again from its own
line; a fallback loses its first member on the way; and a cascade escalates just the lines whose own answer, asked
before without it, is not good enough. Vectors are made one of two embedding models', and again here, and those of a
classifier are compared again.
"""

from __future__ import annotations

import base64
import math
import re
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from e2e.ensembles import add, worker
from e2e.live import Platform, chat, until, up

pytestmark = [pytest.mark.vllm, pytest.mark.engines, pytest.mark.timeout(1_200)]

ENGINE = ("--dtype=float32", "--max-model-len=512", "--max-num-seqs=16")
VOTE = re.compile(r"[aeiou]")
LINES = 500
DRAWN = {"temperature": 1.0}
PANEL = {
    "name": "panel",
    "kind": "vote",
    "members": [
        {"model": "tiny", "params": DRAWN | {"seed": 1}},
        {"model": "tiny", "params": DRAWN | {"seed": 2}},
        {"model": "tiny", "params": DRAWN | {"seed": 3}},
        {"model": "two", "params": DRAWN | {"seed": 1}, "weight": 1.5},
        {"model": "two", "params": DRAWN | {"seed": 2}, "weight": 0.5},
    ],
    "extract": {"regex": VOTE.pattern},
}
BEST = {
    "name": "best",
    "kind": "best_of",
    "members": [
        {"model": "tiny", "params": DRAWN | {"seed": 1}},
        {"model": "tiny", "params": DRAWN | {"seed": 2}},
        {"model": "two", "params": DRAWN | {"seed": 1}, "weight": 2},
    ],
    # There is no fourth answer.
    "judge": {
        "model": "two",
        "params": DRAWN | {"max_tokens": 4, "structured_outputs": {"choice": ["1", "2", "3", "4"]}},
    },
}
MIX = {
    "name": "mix",
    "kind": "combine",
    "members": [{"model": "tiny"}, {"model": "two"}],
    "judge": {"model": "tiny"},
}
NEAR_AND_FAR = {
    "name": "near-and-far",
    "kind": "combine",
    "members": [{"model": "near"}, {"model": "far", "weight": 2}],
    "method": "mean",
}
_MADE = """
import sys
from pathlib import Path
from penstock_worker.engine import tiny, tiny_embed
kind = {"tiny": tiny, "tiny_embed": tiny_embed}[sys.argv[1]]
kind.SEED = int(sys.argv[2])
kind.make(Path(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def vllm(short_dir: Path) -> Iterator[Platform]:
    """One engine; greedy answers in float32, since those in bf16 depend on what else runs."""
    flags = [f"--engine-arg={argument}" for argument in ENGINE]
    settings = {"slice_lines": "50", "worker_gone_seconds": "6", "lease_seconds": "5", "beat_seconds": "1"}
    with up(short_dir / "ve", *flags, ready_seconds=600, cache_timeout_seconds="10", **settings) as platform:
        until(lambda: platform.ask("select count(*) from workers where open") == 1, "the ingress is open", 60)
        yield platform


@pytest.fixture(scope="module")
def two(vllm: Platform, short_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of a second model."""
    folder = made("tiny", 11, short_dir / "two")
    flags = [f"--engine-arg={one}" for one in ENGINE]
    with worker(vllm, f"two={folder}", short_dir / "two.log", *flags, seconds=300) as process:
        yield process


@pytest.fixture(scope="module")
def embedding(vllm: Platform, short_dir: Path) -> Iterator[None]:
    """Workers of two embedding models."""
    with ExitStack() as stack:
        for seed, name in enumerate(("near", "far"), 21):
            folder = made("tiny_embed", seed, short_dir / name)
            stack.enter_context(worker(vllm, f"{name}={folder}", short_dir / f"{name}.log", seconds=300))
        yield


def made(kind: str, seed: int, folder: Path) -> Path:
    """One of the project's tiny models, with weights of another seed."""
    subprocess.run([sys.executable, "-c", _MADE, kind, str(seed), folder], check=True, capture_output=True)
    return folder


def prompt(n: int) -> str:
    return f"Question {n}: what does number {n * 37 % 101} mean to a river?"


def body_of(answer: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = answer["response"]["body"]
    return body


def text_of(body: dict[str, Any]) -> str:
    text: str = body["choices"][0]["message"]["content"] or ""
    return text


def answers(platform: Platform, lines: list[dict[str, Any]], seconds: float = 600) -> list[dict[str, Any]]:
    """The bodies of a batch's answers, in order; each line has one."""
    done = platform.ended(platform.submit(lines).id, seconds)
    assert done.request_counts
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", len(lines), 0)
    return [body_of(answer) for answer in platform.file(done.output_file_id)]


Told = dict[str, dict[str, dict[str, Any]]]
"""By custom_id and label: the body of each member's answer, and the judge's."""


def gathered(
    platform: Platform, lines: Sequence[dict[str, Any]], **more: Any
) -> tuple[dict[str, Any], list[dict[str, Any]], Told]:
    """A traced batch that has completed, the lines of its answers, and of its trace file."""
    done = platform.ended(platform.submit(lines, trace=True, **more).id, 600)
    assert (done.status, done.request_counts and done.request_counts.completed) == ("completed", len(lines))
    shown = platform.http.get(f"/batches/{done.id}").json()
    told: Told = {}
    for line in platform.file(shown["trace_file_id"]):
        told.setdefault(line["custom_id"], {})[line["member"]] = body_of(line)
    answers = platform.file(done.output_file_id)
    assert [answer["custom_id"] for answer in answers] == [line["custom_id"] for line in lines]
    return shown, answers, told


@pytest.mark.usefixtures("two")
def test_a_vote_of_five_is_what_the_trace_file_counts_to(vllm: Platform) -> None:
    add(vllm, PANEL)
    told, answers, said = gathered(vllm, [chat(f"{n}", prompt(n), "panel", max_tokens=8) for n in range(LINES)])
    labels = ["tiny", "tiny#2", "tiny#3", "two", "two#2"]
    weights = dict(zip(labels, (1, 1, 1, 1.5, 0.5), strict=True))
    agreements, tokens = [], 0
    for answer in answers:
        body, texts = body_of(answer), {label: text_of(one) for label, one in said[answer["custom_id"]].items()}
        assert list(texts) == labels, "each member once, in order"
        votes = {label: found[0] for label in labels if (found := VOTE.search(texts[label]))}
        sums: dict[str, float] = {}
        for label, vote in votes.items():
            sums[vote] = sums.get(vote, 0) + weights[label]
        best = max(sums.values())
        tied = [label for label, vote in votes.items() if sums[vote] == best]
        won = votes[max(tied, key=lambda label: (weights[label], -labels.index(label)))]
        winner = next(label for label in labels if votes.get(label) == won)
        trace = body["penstock"]
        assert (trace["winner"], text_of(body)) == (winner, texts[winner]), trace
        assert trace["agreement"] == pytest.approx(best / sum(sums.values()), abs=1e-4)
        assert body["usage"]["total_tokens"] == sum(one["tokens"] for one in trace["members"])
        agreements.append(trace["agreement"])
        tokens += body["usage"]["total_tokens"]
    assert told["usage"]["total_tokens"] == tokens, "it costs what its members did"
    assert min(agreements) < 0.7, "it is a contest"


@pytest.mark.usefixtures("two")
def test_a_cascade_escalates_exactly_the_lines_whose_answer_is_not_good_enough(vllm: Platform) -> None:
    asked = [chat(f"{n}", prompt(n), "tiny", max_tokens=8, temperature=0, logprobs=True) for n in range(100)]
    means = []
    for body in answers(vllm, asked):
        each = [token["logprob"] for token in body["choices"][0]["logprobs"]["content"]]
        means.append(sum(each) / len(each))
    ordered = sorted(means)
    # Between two neighbours near the middle that are well apart, so that no rounding decides.
    at = max(range(30, 70), key=lambda place: ordered[place + 1] - ordered[place])
    least = (ordered[at] + ordered[at + 1]) / 2
    steps = {"name": "steps", "kind": "cascade", "members": [{"model": "tiny"}, {"model": "two"}]}
    add(vllm, steps | {"accept": {"mean_logprob_over": round(least, 6)}})
    told = answers(vllm, [chat(f"{n}", prompt(n), "steps", max_tokens=8, temperature=0) for n in range(100)])
    for mean, body in zip(means, told, strict=True):
        assert body["penstock"]["winner"] == ("tiny" if mean > least else "two"), (mean, least, body)
        assert body["choices"][0]["logprobs"] is None, "nobody asked for them but the cascade"
    assert sum(body["penstock"]["winner"] == "two" for body in told) == at + 1


@pytest.mark.usefixtures("two")
def test_the_best_of_three_is_the_answer_whose_number_the_judge_wrote(vllm: Platform) -> None:
    add(vllm, BEST)
    asked = [chat(f"{n}", prompt(n), "best", max_tokens=8) for n in range(60)]
    shown, answers, said = gathered(vllm, asked)
    labels, named, tokens = ["tiny", "tiny#2", "two"], Counter[str](), 0
    for answer in answers:
        body, of_line = body_of(answer), said[answer["custom_id"]]
        assert list(of_line) == [*labels, "judge"], "each member once, then the judge"
        verdict, trace = text_of(of_line["judge"]), body["penstock"]
        winner = labels[int(verdict) - 1] if int(verdict) <= 3 else "two"
        assert (trace["winner"], trace.get("degraded", False)) == (winner, int(verdict) > 3), trace
        assert trace["judge"]["choice"] == int(verdict)
        assert text_of(body) == text_of(of_line[winner])
        used = {label: one["usage"]["total_tokens"] for label, one in of_line.items()}
        assert body["usage"]["total_tokens"] == sum(used.values())
        assert {one["model"]: one["tokens"] for one in [*trace["members"], trace["judge"]]} == used
        assert of_line["judge"]["usage"]["prompt_tokens"] > of_line["two"]["usage"]["total_tokens"], "it reads them"
        named[verdict] += 1
        tokens += sum(used.values())
    assert shown["usage"]["total_tokens"] == tokens
    assert named.keys() == {"1", "2", "3", "4"}, named


@pytest.mark.usefixtures("two")
def test_a_combined_answer_is_what_the_judge_wrote(vllm: Platform) -> None:
    add(vllm, MIX)
    asked = [chat(f"{n}", prompt(n), "mix", max_tokens=8, temperature=0) for n in range(60)]
    shown, answers, said = gathered(vllm, asked)
    tokens = others = 0
    for answer in answers:
        body, of_line = body_of(answer), said[answer["custom_id"]]
        assert list(of_line) == ["tiny", "two", "judge"]
        wrote, trace = text_of(of_line["judge"]), body["penstock"]
        spoke = bool(wrote.strip())  # else the heaviest member's is given, of several the first
        assert (trace["winner"], trace.get("degraded", False)) == ("judge" if spoke else "tiny", not spoke)
        assert text_of(body) == (wrote if spoke else text_of(of_line["tiny"]))
        assert of_line["judge"]["usage"]["completion_tokens"] <= 8, "the request's limit holds for it, too"
        tokens += sum(one["usage"]["total_tokens"] for one in of_line.values())
        others += wrote not in (text_of(of_line["tiny"]), text_of(of_line["two"]))
    assert shown["usage"]["total_tokens"] == tokens
    assert others > 30, "it says what no member said"


@pytest.mark.usefixtures("embedding")
def test_combined_vectors_are_the_weighted_mean_of_the_members_with_length_one(vllm: Platform) -> None:
    add(vllm, NEAR_AND_FAR)
    url = "/v1/embeddings"
    ways = ("float", "base64")
    asked = [
        {"custom_id": f"{n}", "method": "POST", "url": url,
         "body": {"model": "near-and-far", "input": [prompt(n), prompt(n + 50)], "encoding_format": ways[n % 2]}}
        for n in range(40)
    ]  # fmt: skip
    _, answers, said = gathered(vllm, asked, endpoint=url)
    for answer in answers:
        of_line = said[answer["custom_id"]]
        assert list(of_line) == ["near", "far"]
        for near, far, mixed in zip(*(vectors(one) for one in (*of_line.values(), body_of(answer))), strict=True):
            assert abs(math.dist(near, far)) > 0.1, "they are two models"
            mean = [(a + 2 * b) / 3 for a, b in zip(near, far, strict=True)]
            assert mixed == pytest.approx([one / math.hypot(*mean) for one in mean], abs=1e-6)
            assert math.hypot(*mixed) == pytest.approx(1, abs=1e-6)
    called = vllm.http.post("/embeddings", json=asked[0]["body"]).json()
    for one, other in zip(vectors(called), vectors(body_of(answers[0])), strict=True):
        assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.usefixtures("embedding", "two")
def test_a_classifier_that_embeds_leads_each_line_where_its_nearest_text_does(vllm: Platform) -> None:
    texts = {prompt(3): "river", prompt(14): "river", prompt(27): "number", "other": "other"}
    add(vllm, {
        "name": "desk", "kind": "route", "members": [{"model": "tiny"}, {"model": "two"}], "default": "tiny",
        "classifier": {"model": "near", "by": "embeddings", "labels": ["river", "number", "other"],
                       "examples": {"river": [prompt(3), prompt(14)], "number": [prompt(27)]}},
        "rules": [{"when": {"label": "number"}, "use": "two"}],
    })  # fmt: skip
    said = vllm.http.post("/embeddings", json={"model": "near", "input": [*texts, *map(prompt, range(60))]}).json()
    each = vectors(said)
    told = answers(vllm, [chat(f"{n}", prompt(n), "desk", max_tokens=4) for n in range(60)])
    met = Counter[str]()
    for body, mine in zip(told, each[4:], strict=True):
        trace, near = body["penstock"], [sum(a * b for a, b in zip(mine, one, strict=True)) for one in each[:4]]
        ordered = sorted(zip(near, texts.values(), strict=True), reverse=True)
        label, winner = trace["classifier"]["label"], trace["winner"]
        assert winner == ("two" if label == "number" else "tiny")
        if ordered[0][0] - ordered[1][0] > 1e-4:  # so that no rounding decides
            assert label == ordered[0][1], ordered
        met[label] += 1
    assert len(met) > 1, met
    called = vllm.http.post("/chat/completions", json=chat("", prompt(27), "desk", max_tokens=4)["body"]).json()
    assert (called["penstock"]["classifier"]["label"], called["penstock"]["winner"]) == ("number", "two")
    no_vectors = {"name": "writer", "kind": "route", "members": [{"model": "tiny"}], "default": "tiny",
                  "classifier": {"model": "two", "by": "embeddings", "labels": ["a"]},
                  "rules": [{"when": {"label": "a"}, "use": "tiny"}]}  # fmt: skip
    add(vllm, no_vectors)
    [body] = answers(vllm, [chat("0", "hello", "writer", max_tokens=4)])
    assert (body["penstock"]["degraded"], body["penstock"]["classifier"]["outcome"]) == (True, "refused")


def vectors(body: dict[str, Any]) -> list[list[float]]:
    """The vectors of an answer, whether floats or base64."""
    each = [item["embedding"] for item in body["data"]]
    return [unpacked(one) if isinstance(one, str) else one for one in each]


def unpacked(packed: str) -> list[float]:
    raw = base64.b64decode(packed)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


def test_a_fallback_whose_first_member_is_killed_on_the_way_answers_every_line(
    vllm: Platform, two: subprocess.Popen[bytes]
) -> None:
    safe = {"name": "safe", "kind": "fallback", "members": [{"model": "two"}, {"model": "tiny"}], "timeout_seconds": 2}
    add(vllm, safe)
    lines = [chat(f"{n}", prompt(n), "safe", max_tokens=32, ignore_eos=True) for n in range(LINES)]
    batch = vllm.submit(lines)
    done = f"select coalesce(sum(completed), 0)::int from slices where batch = '{batch.id}' and fold is not null"
    until(lambda: vllm.ask(done) >= LINES // 10, "the first member is at it", 120)
    children = psutil.Process(two.pid).children(recursive=True)
    two.kill()
    ended = vllm.ended(batch.id, 600)
    assert ended.request_counts
    assert (ended.status, ended.request_counts.completed) == ("completed", LINES)
    winners = [body_of(answer)["penstock"]["winner"] for answer in vllm.file(ended.output_file_id)]
    assert 0 < winners.count("two") < LINES, winners.count("two")
    assert winners.count("two") + winners.count("tiny") == LINES
    psutil.wait_procs(children, 60)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
