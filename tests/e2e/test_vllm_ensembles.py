"""Ensembles on the real vLLM: two tiny models of different seeds, each on an engine of its own.

A vote of five is counted again here, of what each member wrote; a fallback loses its first member on the way; and a
cascade escalates just the lines whose own answer, asked before without it, is not good enough.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
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
_TWO = """
import sys
from pathlib import Path
from penstock_worker.engine import tiny
tiny.SEED = 11
tiny.make(Path(sys.argv[1]))
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
    folder = short_dir / "two"
    subprocess.run([sys.executable, "-c", _TWO, folder], check=True, capture_output=True)
    flags = [f"--engine-arg={one}" for one in ENGINE]
    with worker(vllm, f"two={folder}", short_dir / "two.log", *flags, seconds=300) as process:
        yield process


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


@pytest.mark.usefixtures("two")
def test_a_vote_of_five_is_what_the_trace_file_counts_to(vllm: Platform) -> None:
    add(vllm, PANEL)
    done = vllm.ended(
        vllm.submit([chat(f"{n}", prompt(n), "panel", max_tokens=8) for n in range(LINES)], trace=True).id, 600
    )
    assert (done.status, done.request_counts and done.request_counts.completed) == ("completed", LINES)
    told = vllm.http.get(f"/batches/{done.id}").json()
    said: dict[str, dict[str, str]] = {}
    for line in vllm.file(told["trace_file_id"]):
        said.setdefault(line["custom_id"], {})[line["member"]] = text_of(body_of(line))
    labels = ["tiny", "tiny#2", "tiny#3", "two", "two#2"]
    weights = dict(zip(labels, (1, 1, 1, 1.5, 0.5), strict=True))
    answers = vllm.file(done.output_file_id)
    assert [answer["custom_id"] for answer in answers] == [f"{n}" for n in range(LINES)]
    agreements, tokens = [], 0
    for answer in answers:
        body, texts = body_of(answer), said[answer["custom_id"]]
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
