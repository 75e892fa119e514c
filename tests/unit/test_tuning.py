"""The grid, the search, the verdict and the workload of a tuning: rules without an engine."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from penstock.domain.engines.profiles import ECHO, VLLM
from penstock_worker.engine.launch_spec import BadLaunch, Launch
from penstock_worker.tuning import grid, workload
from penstock_worker.tuning.coordinate_search import TuningPoint, search
from penstock_worker.tuning.grid import Coordinate
from penstock_worker.tuning.speed import TimedAnswer, tokens_per_second
from penstock_worker.tuning.trial import kv_tokens
from penstock_worker.tuning.tuning_outcome import TuningOutcome
from penstock_worker.tuning.verdict import MOST_PAIRS, judge
from penstock_worker.tuning.workload import ANSWER_TOKENS, PROMPT_TOKENS, LineShape

SEQS = Coordinate("--max-num-seqs", ("64", "128"))
STEP = Coordinate("--max-num-batched-tokens", ("own", "4096"))


def launched(slots: int) -> Launch:
    return Launch(VLLM, "m", (), {}, Path("s"), slots, slots, 1.0)


def test_a_value_takes_the_place_of_the_one_that_was_there_however_it_was_written() -> None:
    asked = ("--seed=1", "--max_num_seqs", "4")
    assert SEQS.turned(asked, "64") == ("--seed=1", "--max-num-seqs=64")
    assert SEQS.turned(asked, "4") == asked
    assert SEQS.turned(asked, "own") == ("--seed=1",)
    assert Coordinate("--tensor-parallel-size", ()).turned(("-tp", "2"), "4") == ("--tensor-parallel-size=4",)


def test_a_grid_is_read_as_it_is_said() -> None:
    assert grid.read("max-num-seqs=64,128") == SEQS
    assert grid.read("--max_num_batched_tokens=own,4096,own") == STEP
    for odd in ("max-num-seqs", "max-num-seqs=", "=4", "Max=4", "a b=1"):
        with pytest.raises(BadLaunch):
            grid.read(odd)


def test_the_usual_grid_is_around_what_the_engine_does_by_itself() -> None:
    usual = {one.flag: one.values for one in grid.usual(launched(4), launched(128), 0)}
    assert usual == {
        "--max-num-seqs": ("64", "128", "256"),
        "--max-num-batched-tokens": ("2048", "4096", "8192"),
    }
    on_four = {one.flag: one.values for one in grid.usual(launched(128), launched(128), 4)}
    assert on_four["--tensor-parallel-size"] == ("1", "2", "4")
    assert on_four["--max-num-seqs"] == ("64", "256")
    assert "--gpu-memory-utilization" in on_four
    assert [one.flag for one in grid.usual(replace(launched(4), profile=ECHO), launched(8), 1)] == ["--max-num-seqs"]


def speed(arguments: tuple[str, ...]) -> float | None:
    """A device on which both knobs matter, and one value of one kills the engine."""
    seqs, step = SEQS.set_to(arguments), STEP.set_to(arguments)
    if seqs == "128" and step == "4096":
        return None
    return {"own": 10.0, "64": 30.0, "128": 20.0}[seqs] * (2.0 if step == "4096" else 1.0)


def measure(arguments: tuple[str, ...]) -> TuningPoint:
    found = speed(arguments)
    return TuningPoint(arguments, found, None if found else "no memory")


def test_the_search_goes_on_from_the_best_of_each_argument_and_measures_nothing_twice() -> None:
    found: list[TuningPoint] = []
    best = search((), (SEQS, STEP), measure, found.append)
    assert best is not None
    assert best.arguments == ("--max-num-seqs=64", "--max-num-batched-tokens=4096")
    assert best.tokens_per_second == 60
    assert len(found) == len({one.arguments for one in found}) == 4


def test_what_does_not_start_is_a_row_and_not_the_end() -> None:
    found: list[TuningPoint] = []
    best = search(("--max-num-seqs=128", "--max-num-batched-tokens=4096"), (SEQS,), measure, found.append)
    assert found[0].trouble == "no memory"
    assert best is not None
    assert best.tokens_per_second == 60
    assert search(found[0].arguments, (), measure, [].append) is None


def test_no_more_points_are_begun_once_time_is_over() -> None:
    found: list[TuningPoint] = []
    assert search((), (SEQS, STEP), measure, found.append, lambda: len(found) < 2) == found[1]
    assert len(found) == 2


def test_what_is_faster_in_each_pair_by_about_as_much_is_faster() -> None:
    verdict = judge([(100, 150), (110, 160), (90, 140)])
    assert verdict.is_faster
    assert verdict.is_clear
    assert 1.3 < verdict.low < verdict.ratio < verdict.high < 1.7


def test_what_is_faster_now_and_then_may_be_chance() -> None:
    pairs = [(100.0, 120.0), (100.0, 90.0), (100.0, 115.0)]
    assert not judge(pairs).is_faster
    assert not judge(pairs).is_clear
    assert judge([*pairs, *pairs][:MOST_PAIRS]).is_clear


def test_a_single_pair_proves_nothing() -> None:
    verdict = judge([(1.0, 100.0)])
    assert (verdict.is_faster, verdict.is_clear) == (False, False)
    assert TuningOutcome("m", "m", "echo", (), "cpu", 8, verdict=verdict).document()["paired"]["high"] is None


def test_a_gain_too_small_to_care_for_is_none() -> None:
    verdict = judge([(1000.0, 1010.0), (1000.0, 1010.1), (1000.0, 1009.9)])
    assert verdict.low > 1
    assert not verdict.is_faster
    assert verdict.is_clear


def test_the_default_is_recommended_unless_another_is_faster_for_sure() -> None:
    base, other = TuningPoint((), 100.0), TuningPoint(("--max-num-seqs=64",), 130.0)
    found = TuningOutcome("chat", "/models/chat", "vllm", (), "cpu", 8, [base, other], other)
    assert found.chosen is base
    found.verdict = judge([(100, 130), (100, 131)])
    assert found.chosen is other
    assert found.command == "penstock worker --model chat=/models/chat --engine vllm --engine-arg=--max-num-seqs=64"
    assert [one.chosen for one in found.tunings()] == [False, True]
    found.verdict = judge([(100, 130), (100, 80), (100, 110)])
    assert found.chosen is base
    assert "Not clear yet" in found.words
    found.verdict = judge([(100, 130), (100, 80), (100, 95)])
    assert found.chosen is base
    assert "as good" in found.words


def test_what_a_secret_argument_says_is_in_no_document_row_or_command() -> None:
    base = TuningPoint(("--api-token=abc", "--seed=1"), 1.0)
    found = TuningOutcome("chat", "chat", "vllm", base.arguments, "cpu", 8, [base], base)
    told = repr((found.document(), found.tunings(), list(found.table()), found.command, found.words))
    assert "abc" not in told
    assert "--seed=1" in told


def test_the_speed_is_that_of_the_time_in_which_the_engine_was_full() -> None:
    """Two at once, one second each, ten tokens each; the last one is left alone for three seconds."""
    answered = [TimedAnswer(n // 2, n // 2 + 1.0, 10) for n in range(8)] + [TimedAnswer(4.0, 7.0, 30)]
    assert math.isclose(tokens_per_second(answered), 80 / 4)


def test_where_all_went_in_at_once_all_of_the_time_counts() -> None:
    assert math.isclose(tokens_per_second([TimedAnswer(0.0, 1.0, 10), TimedAnswer(0.0, 2.0, 10)]), 10)


def test_the_workload_has_the_lengths_of_the_trace_and_no_line_twice() -> None:
    bodies = [
        msgspec.json.decode(one) for one in workload.lines(LineShape(tokens_per_word=1.0, context=65_536), "m", 64, 1)
    ]
    words = sorted(len(one["prompt"].split()) for one in bodies)
    answers = sorted(one["max_tokens"] for one in bodies)
    for found, tokens in ((words, PROMPT_TOKENS), (answers, ANSWER_TOKENS)):
        assert tokens[7] <= found[31] <= tokens[9]  # about the median
        assert found[60] >= tokens[13]
    assert len({one["prompt"][:100] for one in bodies if len(one["prompt"]) > 100}) > 50
    assert {n: c for n, c in Counter(one["prompt"] for one in bodies).items() if c > 1} == {}


def test_another_round_has_other_words_of_the_same_lengths_that_fit_the_context() -> None:
    shape = LineShape(tokens_per_word=2.0, context=512)
    first, second = ([msgspec.json.decode(one) for one in workload.lines(shape, "m", 32, seed)] for seed in (1, 2))
    assert [one["max_tokens"] for one in first] == [one["max_tokens"] for one in second]
    assert [len(one["prompt"].split()) for one in first] == [len(one["prompt"].split()) for one in second]
    assert first != second
    assert max(2 * len(one["prompt"].split()) + one["max_tokens"] for one in first) <= 512


def test_what_a_cache_holds_is_read_off_the_metrics_page() -> None:
    page = '# TYPE c gauge\nc{block_size="16",num_gpu_blocks="100"} 1.0\nc{block_size="16",num_gpu_blocks="50"} 1.0\n'
    assert kv_tokens(page, "c") == 2_400
    assert kv_tokens(page, "other") is None
