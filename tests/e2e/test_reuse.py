"""Work that repeats is done once: equal lines of a batch, whole batches, and waiting calls; on the simulated engine."""

from __future__ import annotations

from typing import Any

import pytest
from e2e.conftest import WITHOUT_REDIS
from e2e.live import Platform, chat, said, until
from openai.types import Batch

pytestmark = pytest.mark.timeout(120)
with_redis = pytest.mark.skipif(WITHOUT_REDIS, reason="the cache is in Redis")


def ended(platform: Platform, lines: list[dict[str, Any]], **extra: Any) -> tuple[Batch, list[dict[str, Any]]]:
    """A batch that is over, and its output, which must have each line once with its own answer."""
    batch = platform.ended(platform.submit(lines, **extra).id)
    assert batch.status == "completed"
    assert batch.request_counts
    assert batch.request_counts.completed == len(lines)
    output = platform.file(batch.output_file_id)
    assert [line["custom_id"] for line in output] == [line["custom_id"] for line in lines]
    assert [said(line) for line in output] == [line["body"]["messages"][0]["content"] for line in lines]
    assert len({line["id"] for line in output}) == len(lines)
    return batch, output


def reused(batch: Batch) -> int:
    """Output tokens that no engine made again."""
    return batch.to_dict()["usage"]["output_tokens_details"]["reused_tokens"]  # type: ignore[index, return-value]


def spared(batch: Batch) -> tuple[int, int]:
    """Output tokens that equal lines and the shared cache spared."""
    told = batch.to_dict()["saved"]
    return told["equal_lines"]["output_tokens"], told["shared_cache"]["output_tokens"]  # type: ignore[index, return-value]


def cached(output: list[dict[str, Any]]) -> int:
    return sum(line["response"].get("cached", False) for line in output)


def repeated(name: str, count: int, different: int, **more: Any) -> list[dict[str, Any]]:
    return [chat(f"{name}-{n}", f"{name} {n % different}", **{"temperature": 0, **more}) for n in range(count)]


def test_equal_lines_are_asked_once_and_every_line_has_its_answer(platform: Platform) -> None:
    lines = repeated("twins", 100, 10)
    batch, output = ended(platform, lines)
    assert cached(output) == 90
    tokens = [line["response"]["body"]["usage"]["completion_tokens"] for line in output if "cached" in line["response"]]
    assert reused(batch) == sum(tokens) > 0
    assert spared(batch) == (reused(batch), 0)
    assert batch.usage
    assert batch.usage.output_tokens == reused(batch) // 9 * 10


def test_it_is_switched_off_by_the_batch_and_by_its_temperature(platform: Platform) -> None:
    for lines, extra in ((repeated("off", 20, 2), {"dedup": False}), (repeated("warm", 20, 2, temperature=1), {})):
        batch, output = ended(platform, lines, **extra)
        assert (cached(output), reused(batch)) == (0, 0)


def test_equal_lines_are_refused_together(platform: Platform) -> None:
    lines = [chat(f"{n}", "never [[status 400]]", temperature=0) for n in range(10)]
    batch = platform.ended(platform.submit(lines).id)
    errors = platform.file(batch.error_file_id)
    assert [line["response"]["status_code"] for line in errors] == [400] * 10
    assert batch.request_counts
    assert (batch.request_counts.completed, batch.request_counts.failed) == (0, 10)


@with_redis
def test_a_batch_that_comes_again_is_answered_from_the_cache(platform: Platform) -> None:
    lines = repeated("again", 300, 300)
    first, output = ended(platform, lines, cache={"mode": "on"})
    assert (cached(output), reused(first)) == (0, 0)

    def is_cached() -> bool:
        batch, again = ended(platform, lines, cache={"mode": "on"})
        assert first.usage
        assert reused(batch) <= first.usage.output_tokens
        assert spared(batch) == (0, reused(batch))
        return cached(again) == 300 and reused(batch) == first.usage.output_tokens

    until(is_cached, "all of it is cached")
    assert cached(ended(platform, lines)[1]) == 0, "who does not ask for it gets nothing from it"


@with_redis
def test_waiting_calls_and_jobs_share_answers(platform: Platform) -> None:
    body = chat("x", "shared by all", temperature=0)["body"]
    assert platform.http.post("/jobs", json={"body": body, "cache": {"mode": "on"}}).status_code == 200

    def came() -> str:
        answer = platform.http.post("/chat/completions", json=body, headers={"x-penstock-cache": "on"})
        assert answer.json()["choices"][0]["message"]["content"] == "shared by all"
        return answer.headers["x-penstock-cache"]

    until(lambda: came() == "hit", "a call is answered by what a job left there")
    job = platform.http.post("/jobs", json={"body": body, "cache": {"mode": "on"}}).json()
    over = platform.http.get(f"/jobs/{job['id']}", params={"wait": 20}).json()
    assert over["results"][0]["response"]["cached"] is True
