"""The figures of `make bench-batch` rest on this: files are what their rows say, and answers are compared whole."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from bench import batch, batch_check, batch_files, batch_report, counters, occupancy, result, trace
from bench.batch_files import Maker, small_cache
from bench.batch_ours import Done
from bench.load import Writer
from bench.occupancy import Load

PAGE = """# HELP vllm:prefix_cache_hits_total hits
vllm:prefix_cache_queries_total{engine="0",model_name="tiny"} 400.0
vllm:prefix_cache_hits_total{engine="0",model_name="tiny"} 100.0
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="tiny"} 7.0
vllm:request_success_total{engine="0",finished_reason="abort",model_name="tiny"} 2.0
"""


def maker(lines: int = 500) -> Maker:
    return Maker(trace.synthetic(), Writer("tiny", tokens_per_word=2.0), 0.4, lines, seed=1)


def prompts(bodies: list[dict[str, Any]]) -> list[str]:
    return [json.dumps(body["messages"]) for body in bodies]


def test_lines_of_a_are_unique_deterministic_and_as_long_as_asked_for() -> None:
    bodies = maker().bodies("A", 0)
    assert len(set(prompts(bodies))) == len(bodies) == 500
    assert all(body["temperature"] == 0 and body["ignore_eos"] and body["max_tokens"] > 1 for body in bodies)


def test_another_repeat_is_another_draw_and_the_same_one_has_the_same_sizes() -> None:
    drawn = [[body["max_tokens"] for body in maker().bodies("A", repeat)] for repeat in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_two_of_five_lines_of_c_are_exact_copies_spread_over_the_file() -> None:
    bodies = maker().bodies("C", 0)
    seen = Counter(prompts(bodies))
    assert len(bodies) == 500
    assert len(seen) == 300
    first_half = Counter(prompts(bodies[:250]))
    assert 0 < sum(first_half.values()) - len(first_half) < 150


def test_lines_of_one_size_are_as_long_as_asked_for_and_the_long_ones_of_d_twenty_times_longer() -> None:
    alike = replace(maker(), trace=trace.alike(trace.Size.parse("137x128")), scale=1.0)
    assert {body["max_tokens"] for body in alike.bodies("A", 0)} == {128}
    assert Counter(body["max_tokens"] for body in alike.bodies("D", 0)) == {32: 475, 640: 25}


def test_lines_of_b_share_twenty_system_prompts_and_neighbours_seldom_the_same() -> None:
    systems = [body["messages"][0]["content"] for body in maker().bodies("B", 0)]
    assert sorted(Counter(systems).values()) == [25] * 20
    assert sum(one == other for one, other in pairwise(systems)) < 60
    assert len({system.split()[0] for system in systems}) == 20


def test_one_of_twenty_answers_of_d_is_twenty_times_longer_and_fits_the_model() -> None:
    answers = sorted(body["max_tokens"] for body in maker().bodies("D", 0))
    assert sum(answers[-25:]) / 25 > 12 * sum(answers[:-25]) / 475
    assert answers[-1] + 2_048 <= 4_096


def test_a_file_is_one_line_for_each_request_and_its_answers_are_known_by_custom_id() -> None:
    assert len(batch_files.jsonl(maker(3).bodies("A", 0)).splitlines()) == 3
    assert batch_files.answers(answered("line-0", "yes")) == {"line-0": (("yes", "length"), 2)}


def test_lines_of_g_and_i_are_short_and_long_texts_to_embed_and_their_answers_are_known_by_length() -> None:
    short, long = maker(4).bodies("G", 0), maker(4).bodies("I", 0)
    assert (len(short), len(long)) == (10, 4)
    words = [{len(body["input"].split()) for body in bodies} for bodies in (short, long)]
    assert words[0] <= {9, 10, 11}, "two tokens a word, and a number"
    assert words[1] == {201}
    assert len({body["input"] for body in (*short, *long)}) == 14
    alike = replace(maker(4), trace=trace.alike(trace.Size.parse("64x1")), scale=1.0, alike=True)
    assert {len(body["input"].split()) for body in alike.bodies("G", 0)} == {33}
    file = batch_files.jsonl(short, batch_files.EMBEDDINGS)
    assert [json.loads(line)["url"] for line in file.splitlines()] == ["/v1/embeddings"] * 10
    assert batch_files.answers(embedded([0.5, 0.25], 7)) == {"line-0": (2, 7)}


def test_vectors_are_compared_by_their_cosine_and_usage_by_line() -> None:
    same = batch_files.likeness(embedded([0.5, 0.25], 7), embedded([1.0, 0.5], 7))
    assert same == {"lines": 1, "least_cosine": pytest.approx(1.0), "equal_usage": 1}
    other = batch_files.likeness(embedded([0.5, 0.0], 7), embedded([0.0, 0.5], 8))
    assert other == {"lines": 1, "least_cosine": pytest.approx(0.0), "equal_usage": 0}


def test_lines_of_j_are_pairs_to_score_and_their_answers_are_compared_by_how_far_they_are_apart() -> None:
    bodies = maker(4).bodies("J", 0)
    assert len(bodies) == 9
    assert bodies[0]["text_2"] == bodies[1]["text_1"] != bodies[0]["text_1"]
    assert json.loads(batch_files.jsonl(bodies, batch_files.SCORE).partition(b"\n")[0])["url"] == "/v1/score"
    one, other = (embedded([0.5], 7).replace(b'"embedding": [0.5]', b'"score": ' + said) for said in (b"0.5", b"0.25"))
    assert batch_files.answers(one) == {"line-0": (7,)}
    assert batch_files.likeness(one, other) == {"lines": 1, "scores_apart": 0.25, "equal_usage": 1}


def embedded(vector: list[float], tokens: int) -> bytes:
    body = {"data": [{"embedding": vector}], "usage": {"prompt_tokens": tokens}}
    line = {"custom_id": "line-0", "response": {"status_code": 200, "body": body}, "error": None}
    return json.dumps(line).encode() + b"\n"


def test_the_cache_of_b_grows_with_its_prompts_in_blocks_of_any_size() -> None:
    assert small_cache() == ("--num-gpu-blocks-override", "80", "--block-size", "128")
    assert small_cache(80, 16) == ("--num-gpu-blocks-override", "2560", "--block-size", "16")
    assert len({body["messages"][0]["content"] for body in replace(maker(), prompts=80).bodies("B", 0)}) == 80


@pytest.mark.parametrize("output", ["refused", "doubled"])
def test_a_line_that_was_not_answered_once_ends_the_benchmark(output: str) -> None:
    line = answered("line-0", "yes")
    broken = line.replace(b"200", b"500") if output == "refused" else line + line
    with pytest.raises(ValueError, match="not answered once"):
        batch_files.answers(broken)


def test_an_answer_that_differs_or_is_missing_is_named() -> None:
    expected = {"a": ("x",), "b": ("y",), "c": ("z",)}
    assert batch_check.compared(expected, {"a": ("x",), "b": ("other",)}) == {"equal": 1, "differ": ["b", "c"]}


def test_ratios_are_paired_and_transfers_count_on_our_side_only() -> None:
    pairs = [pair(0, ours=10.0, theirs=20.0), pair(1, ours=20.0, theirs=20.0), pair(2, ours=10.0, theirs=10.0)]
    row = batch_report.table(pairs)[0]
    assert (row["ratio"]["value"], row["ratio"]["low"], row["ratio"]["high"]) == (1.0, 1.0, 2.0)
    assert row["ratio_with_transfers"]["value"] == pytest.approx(20 / 22, abs=1e-5)


def test_a_row_without_the_other_side_has_no_ratio() -> None:
    row = batch_report.table([pair(0, ours=10.0, theirs=10.0) | {"theirs": None}])[0]
    assert row["ratio"]["repeats"] == 0
    batch_report.show({"table": [row], "trace": "none"} | result.begin(argparse.Namespace()))


def test_what_an_engine_did_is_the_difference_of_its_counters_and_every_look_at_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(occupancy, "LOOK_SECONDS", 0.01)
    looks, enough = 0, asyncio.Event()

    async def look() -> counters.Counts:
        nonlocal looks
        looks += 1
        if looks == 4:
            enough.set()
        return counters.read(PAGE.replace(" 100.0", f" {100 + looks}"), at=0.0)

    async def watch() -> Load:
        async with occupancy.watched(look) as load:
            await enough.wait()
        return load

    load = asyncio.run(watch())
    assert load.mean_running == 3
    assert load.prefix_hits == looks - 1
    assert load.prefix_queries == load.answered == 0
    assert counters.read(PAGE, at=0.0).answered == 7


def test_a_result_says_of_which_code_and_settings_it_is_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_SLICE_TOKENS", "1000")
    monkeypatch.setenv("PENSTOCK_BOOTSTRAP_KEY", "sk-a-secret-that-is-long")
    found = result.begin(argparse.Namespace(repeats=3))
    result.write(tmp_path / "found.json", found)
    assert found["environment"]["PENSTOCK_SLICE_TOKENS"] == "1000"
    assert "sk-a-secret-that-is-long" not in (tmp_path / "found.json").read_text()
    assert found["code"]["penstock"] in result.told(found)


def answered(custom_id: str, words: str) -> bytes:
    body = {
        "choices": [{"message": {"content": words}, "finish_reason": "length"}],
        "usage": {"completion_tokens": 2},
    }
    line = {"custom_id": custom_id, "response": {"status_code": 200, "body": body}, "error": None}
    return json.dumps(line).encode() + b"\n"


def pair(repeat: int, ours: float, theirs: float) -> dict[str, Any]:
    """Seconds of 100 lines; up- and download take two more."""
    return {
        "row": "A",
        "repeat": repeat,
        "ours": Done(ours, 100, Load(), 1.0, 1.0, {"validate": 0.5}).json(),
        "theirs": Done(theirs, 100, Load()).json(),
    }


def test_a_rows_own_flags_stand_unless_they_are_given() -> None:
    assert batch._unless_given(small_cache(), ["--max-num-seqs", "128"]) == list(small_cache())
    given = ["--block_size=16", "--num-gpu-blocks-override", "640"]
    assert batch._unless_given((*small_cache(), "--x"), given) == ["--x"]
