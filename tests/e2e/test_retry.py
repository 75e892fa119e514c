"""Retry on a live platform with the simulated engine: seen before, warned of, repaired in one call, merged whole."""

from __future__ import annotations

from typing import Any

import pytest
from e2e.live import Platform, chat, jsonl, said

pytestmark = pytest.mark.timeout(300)

REFUSED = set(range(7, 1_000, 25))
EMPTY = set(range(11, 1_000, 50))


def line(number: int, **body: Any) -> dict[str, Any]:
    """A line that is refused, or answered with nothing, unless max_tokens is large; or an easy one."""
    hard = " [[needs 100]]" * (number in REFUSED) + " [[think 100]]" * (number in EMPTY)
    return chat(f"line-{number}", f"question {number}{hard}", max_tokens=16, **body)


def test_one_call_repairs_sixty_of_a_thousand_lines_with_a_larger_max_tokens(platform: Platform) -> None:
    assert len(REFUSED) + len(EMPTY) == 60
    parent = platform.ended(platform.submit([line(n) for n in range(1_000)]).id)
    seen = platform.http.get(f"/batches/{parent.id}").json()
    assert seen["request_counts"] == {"total": 1_000, "completed": 960, "failed": 40}
    [warning] = seen["warnings"]
    assert (warning["code"], warning["count"], warning["lines"]) == (
        "empty_answers", 20, [n + 1 for n in sorted(EMPTY)[:10]],
    )  # fmt: skip

    asked = {"lines": {"failed": True, "answered": "empty"}, "set": {"max_tokens": 512}, "lane": "priority"}
    made = platform.http.post(f"/batches/{parent.id}/retry", json=asked).raise_for_status().json()
    child = platform.ended(made["id"]).model_dump()
    assert child["status"] == "completed"
    assert child["request_counts"] == {"total": 60, "completed": 60, "failed": 0}
    assert (child["parent_batch_id"], child["lane"], child["warnings"]) == (parent.id, "priority", None)
    assert platform.http.get(f"/batches/{parent.id}").json()["children"] == [made["id"]]

    assert child["merged_error_file_id"] is None
    merged = platform.file(child["merged_output_file_id"])
    assert [one["custom_id"] for one in merged] == [f"line-{n}" for n in range(1_000)]
    assert all(said(one).startswith(f"question {n}") for n, one in enumerate(merged))
    assert {one["response"]["body"]["choices"][0]["finish_reason"] for one in merged} == {"stop"}
    repaired = {one["id"] for one in platform.file(child["output_file_id"])}
    assert {n for n, one in enumerate(merged) if one["id"] in repaired} == REFUSED | EMPTY


def test_a_retry_of_a_small_job_brings_merged_files_and_can_be_retried_in_turn(platform: Platform) -> None:
    requests = [{"custom_id": f"{n}", "body": line(n)["body"]} for n in (6, 7, 11)]
    parent = platform.http.post("/jobs", json={"requests": requests}).json()["id"]
    assert platform.http.get(f"/jobs/{parent}?wait=30").json()["request_counts"]["failed"] == 1
    first = platform.http.post(f"/jobs/{parent}/retry").raise_for_status().json()["id"]
    once = platform.http.get(f"/jobs/{first}?wait=30").json()
    assert [one["custom_id"] for one in platform.file(once["merged_output_file_id"])] == ["6", "11"]
    assert [one["custom_id"] for one in platform.file(once["merged_error_file_id"])] == ["7"]
    second = platform.http.post(f"/jobs/{first}/retry", json={"set": {"max_tokens": 200}}).json()["id"]
    twice = platform.http.get(f"/jobs/{second}?wait=30").json()
    assert [one["custom_id"] for one in platform.file(twice["merged_output_file_id"])] == ["6", "7", "11"]
    assert twice["merged_error_file_id"] is None


def test_an_estimate_by_the_engines_own_tokenizer_is_what_the_batch_then_takes(platform: Platform) -> None:
    lines = [chat(f"{n}", "x" * (40 + n % 160), max_tokens=8, ignore_eos=True) for n in range(100)]
    file = platform.sdk.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch").id
    asked = {"input_file_id": file, "endpoint": lines[0]["url"], "completion_window": "24h"}
    seen = platform.http.post("/batches/estimate", json=asked).raise_for_status().json()
    assert seen["based_on"]["input"] == "tokenizer"
    assert (seen["lines"]["count"], seen["lines"]["exact"]) == (100, True)
    usage = platform.ended(platform.sdk.batches.create(**asked).id).usage  # type: ignore[arg-type]
    assert usage
    assert seen["input_tokens"] == dict.fromkeys(("low", "expected", "high"), usage.input_tokens)
    assert seen["output_tokens"]["expected"] == usage.output_tokens
