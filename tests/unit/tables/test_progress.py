"""Several batches of one table are shown as one, with what they cost so far and in all."""

from __future__ import annotations

from typing import Any

from penstock.cli.table_map.progress import cost_words, summary, together


def state(status: str, completed: int, failed: int, total: int, tokens: str | None, gpu: str = "0") -> dict[str, Any]:
    """A batch as the API shows it."""
    cost = tokens and {"currency": "EUR", "tokens": tokens, "gpu": gpu, "gpu_seconds": 1.0}
    return {
        "id": f"batch_{status}",
        "status": status,
        "request_counts": {"total": total, "completed": completed, "failed": failed},
        "usage": {"input_tokens": 10 * completed, "output_tokens": 20 * completed},
        "cost": cost,
    }


def test_counts_tokens_and_cost_are_sums_and_the_state_is_of_the_one_that_is_least_far() -> None:
    all_ = together([state("completed", 99, 1, 100, "0.10"), state("in_progress", 0, 0, 300, None)])
    assert (all_["id"], all_["status"]) == ("2 batches", "in_progress")
    assert all_["request_counts"] == {"total": 400, "completed": 99, "failed": 1}
    assert all_["usage"] == {"input_tokens": 990, "output_tokens": 1980}
    assert cost_words(all_) == "0.1000 EUR so far, about 0.4000 in all"


def test_at_the_end_the_cost_is_what_it_was() -> None:
    states = [state("completed", 9, 1, 10, "0.25")]
    assert summary(10, 1, "x_error", states) == (
        "10 rows, 9 answered, 1 failed (why: x_error); 90 tokens in, 180 out; 0.2500 EUR"
    )


def test_tokens_without_a_price_are_told_by_gpu_seconds_or_not_at_all() -> None:
    assert cost_words(together([state("completed", 1, 0, 1, "0", gpu="2")])) == "2.0000 EUR"
    assert cost_words(together([state("completed", 1, 0, 1, None)])) == ""
