"""An engine's metrics page is passed on as it is, with its worker's name; a failed line counts by its own code."""

from __future__ import annotations

import pytest

from penstock.domain.line_errors import CRASHED
from penstock.formats import output
from penstock_worker import line_metrics
from penstock_worker.engine import metrics


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("up 1", 'up{worker="w"} 1'),
        ('vllm:x{le="+Inf",a="} 3"} 4.0 1700', 'vllm:x{worker="w",le="+Inf",a="} 3"} 4.0 1700'),
        ("vllm:x{} NaN", 'vllm:x{worker="w"} NaN'),
        ('vllm:x{worker="3",a="b",} 1', 'vllm:x{worker="w",exported_worker="3",a="b"} 1'),
        ('vllm:x{a="b", worker="3"} 1', 'vllm:x{worker="w",a="b",exported_worker="3"} 1'),
        ('vllm:x{fireworker="3"} 1', 'vllm:x{worker="w",fireworker="3"} 1'),
        ("# HELP vllm:x Words.", "# HELP vllm:x Words."),
    ],
)
def test_a_sample_is_passed_on_with_its_workers_name(row: str, told: str) -> None:
    assert metrics.passed_on(f"{row}\n", "w") == f"{told}\n"


def test_what_is_no_sample_or_plays_one_of_ours_or_is_far_too_much_is_not_passed_on() -> None:
    assert metrics.passed_on("<html>\n\npenstock_lines_total 7\n", "w") == ""
    assert metrics.passed_on("x 1\n" * (metrics.MOST_SAMPLES + 1), "w") == ""


def test_a_failed_line_is_counted_by_its_own_code_whatever_it_is_called_and_says() -> None:
    odd = '"response":{"status_code":200'
    refused = output.answered("batch_1", 1, odd, 400, None, b'{"response":null,"error":{"code":"made_up"}}')
    assert line_metrics.code(refused.line) == "status_400"
    assert line_metrics.code(output.ended("batch_1", 1, odd, CRASHED).line) == "engine_crash"
