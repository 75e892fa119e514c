"""The course of `make bench-gpu`, with stand-ins for its benchmarks: what runs, for how long, and what a call leaves to
the next one. And what it makes: models and the table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from bench import descendants, stop
from bench.gpu import lanes, shapes, table
from bench.gpu.__main__ import PARTS, alone
from bench.gpu.course import Course
from bench.gpu.part import END_SECONDS, Part, Row, Setting
from bench.test_stop import TESTS, until

SETTING = Setting(shapes.SHAPES["tiny"], shapes.Models(Path(), Path(), Path()), engine="echo")
WRITES = "open(sys.argv[1], 'w').write('{\"lines\": 3}'); open(sys.argv[1] + '.runs', 'a').write('.')"
HANGS = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', 'engine-core']); time.sleep(600)"


def part(name: str, does: str, seconds: float = 1.0) -> Part:
    """A part that runs this Python, and takes so long at least, besides the time to end."""

    def command(setting: Setting, minutes: float, json: Path) -> Sequence[str]:
        return [sys.executable, "-c", f"import subprocess, sys, time\n{does}", str(json)]

    def rows(found: dict[str, Any]) -> Sequence[Row]:
        return [Row(f"file {name}", "lines/s", found.get("lines"), 2.0, 1.5)]

    return Part(name, f"what of {name}?", 0, (seconds, seconds), 1.0, command, rows)


def course(folder: Path, *parts: Part) -> Course:
    """With what calls before found."""
    head = {"code": {"penstock": "0", "commit": "c"}, "told": "a machine"}
    made = Course(parts, SETTING, folder, say=lambda words: None, head=head)
    if made.file.exists():
        made.outcomes = json.loads(made.file.read_text())["parts"]
    return made


def run(folder: Path, *parts: Part, seconds: float = 60.0) -> dict[str, str]:
    """One call; the status of each part after it."""
    called = course(folder, *parts)
    called.run([part.name for part in parts], seconds)
    return {name: outcome["status"] for name, outcome in called.outcomes.items()}


def runs(folder: Path, name: str) -> int:
    marks = folder / f"{name}.new.json.runs"
    return len(marks.read_text()) if marks.exists() else 0


def test_parts_that_are_done_are_left_alone_by_the_next_call(tmp_path: Path) -> None:
    parts = [part("a", WRITES), part("b", WRITES)]
    assert run(tmp_path, *parts) == run(tmp_path, *parts) == {"a": "done", "b": "done"}
    assert runs(tmp_path, "a") == runs(tmp_path, "b") == 1


def test_a_part_that_fails_is_noted_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    assert run(tmp_path, part("a", "sys.exit('no such card')"), part("b", WRITES)) == {"a": "failed", "b": "done"}
    found = json.loads((tmp_path / "bench-gpu.json").read_text())
    assert found["parts"]["a"]["why"] == "no such card"
    assert found["rows"]["b"] == [Row("file b", "lines/s", 3, 2.0, 1.5).json()]


def test_a_part_that_ends_well_without_its_figures_has_failed(tmp_path: Path) -> None:
    lost = """open(sys.argv[1], 'w').write('{"lost": {"A (repeat 0)": "TimeoutError: no answer"}}')"""
    assert run(tmp_path, part("a", lost)) == {"a": "failed"}
    assert "TimeoutError: no answer" in course(tmp_path).outcomes["a"]["why"]


GROUP = """
import asyncio, time
async def lost():
    raise RuntimeError('vllm run-batch did not start: | one\\n\\ntwo')
async def main():
    async with asyncio.TaskGroup() as group:
        group.create_task(lost())
asyncio.run(main())
"""


def test_the_reason_is_the_error_of_a_group_and_not_the_border_around_it(tmp_path: Path) -> None:
    run(tmp_path, part("a", GROUP))
    why = course(tmp_path).outcomes["a"]["why"]
    assert why == "RuntimeError: vllm run-batch did not start: | one"


def test_a_reason_of_several_lines_stays_within_its_cell(tmp_path: Path) -> None:
    lost = """open(sys.argv[1], 'w').write('{"lost": {"A": "RuntimeError: one |\\\\n\\\\n two"}}')"""
    called = course(tmp_path, part("a", lost))
    called.run("a", 60.0)
    assert called.outcomes["a"]["why"].endswith("one |\n\n two")
    lines = table.markdown(called).splitlines()
    assert any(line.startswith("| (a) |") and line.endswith("RuntimeError: one / two |") for line in lines)
    assert any(line.startswith("(a) failed") and line.endswith("one | two") for line in lines)


def test_a_part_that_is_done_is_untried_again_without_its_file(tmp_path: Path) -> None:
    run(tmp_path, part("a", WRITES))
    (tmp_path / "a.json").unlink()
    assert run(tmp_path, part("a", WRITES, 90.0), seconds=60.0) == {"a": "no time"}
    assert run(tmp_path, part("a", WRITES)) == {"a": "done"}
    assert runs(tmp_path, "a") == 2


def two_rows(does: str) -> Part:
    """A part of two rows."""

    def rows(found: dict[str, Any]) -> Sequence[Row]:
        return [Row(name, "s", found.get(name), None, alone=True) for name in ("one", "two")]

    return replace(part("a", does), rows=rows)


def test_a_retry_replaces_what_an_earlier_try_found_only_if_it_has_as_many_rows(tmp_path: Path) -> None:
    def writes(text: str) -> Part:
        return two_rows(f"open(sys.argv[1], 'w').write('{text}'); sys.exit('lost')")

    def kept() -> dict[str, Any]:
        return dict(json.loads((tmp_path / "a.json").read_text()))

    run(tmp_path, writes('{"one": 1}'))
    run(tmp_path, writes("{}"))
    run(tmp_path, two_rows("sys.exit('no card')"))
    assert kept() == {"one": 1}
    assert course(tmp_path).outcomes["a"]["why"] == "no card"
    run(tmp_path, writes('{"two": 2}'))
    assert kept() == {"two": 2}
    assert run(tmp_path, two_rows("""open(sys.argv[1], 'w').write('{"one": 1, "two": 2}')""")) == {"a": "done"}


def test_what_is_measured_anew_takes_nothing_of_before_and_a_kill_in_its_middle_leaves_that_whole(
    tmp_path: Path,
) -> None:
    run(tmp_path, part("a", WRITES))
    fresh = course(tmp_path, part("a", "raise KeyboardInterrupt if open(sys.argv[1], 'w') else 0"))
    fresh.outcomes = {}
    before = (tmp_path / "a.json").read_text()

    def killed(self: Course, *_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Course, "_adopt", killed)
        with pytest.raises(KeyboardInterrupt):
            fresh.run("a", 60.0)
    assert (tmp_path / "a.json").read_text() == before
    fresh.run("a", 60.0)
    assert fresh.rows(fresh.parts[0])[0].open


def test_rows_of_another_commit_or_driver_are_said_to_be(tmp_path: Path) -> None:
    parts = [part("a", WRITES), part("b", WRITES), part("c", WRITES)]
    run(tmp_path, parts[0])
    called = course(tmp_path, *parts)
    called.head |= {"code": {"penstock": "0", "commit": "d"}, "card": {"cards": [{"driver": "580"}]}}
    called.run("b", 60.0)
    assert called.outcomes["b"]["of"] == {"commit": "d", "driver": "580"}
    lines = table.markdown(called).splitlines()
    assert "(a) was measured with commit c." in lines
    assert [line for line in lines if line.startswith("(b)")] == []


@pytest.mark.slow
def test_a_part_that_goes_on_beyond_its_time_is_cut_and_nothing_of_it_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("course", "part"):
        monkeypatch.setattr(f"bench.gpu.{module}.END_SECONDS", 1.0)
    began = time.monotonic()
    with descendants.of(os.getpid()) as seen:
        assert run(tmp_path, part("a", HANGS, 2.0), seconds=3.2) == {"a": "cut"}
        assert time.monotonic() - began < 6.0
        assert [line for line in seen.left() if "engine-core" in line] == []


def test_what_has_no_time_is_said_and_goes_first_next_time_then_what_was_cut_or_failed(tmp_path: Path) -> None:
    parts = [part("a", "sys.exit(1)"), part("b", WRITES, seconds=65.0), part("c", WRITES)]
    assert run(tmp_path, *parts) == {"a": "failed", "c": "done", "b": "no time"}
    assert [one.name for one in course(tmp_path, *parts).waiting("abc")] == ["b", "a"]
    assert "90 are needed" in course(tmp_path).outcomes["b"]["why"]


def test_the_time_is_shared_by_what_fits_and_never_exceeded() -> None:
    parts = [part("a", "", 75.0), part("b", "", 475.0), part("c", "", 25.0)]
    shares = course(Path(), *parts).shares(parts, 250.0)
    assert list(shares) == ["a", "c"]
    assert shares == {"a": 150.0, "c": 100.0}
    assert course(Path(), *parts).shares(parts, 40.0) == {}


def test_a_part_has_the_least_of_its_work_before_its_engines_are_told_to_end() -> None:
    for one in PARTS:
        for shape in shapes.SHAPES.values():
            setting = Setting(shape, SETTING.models, on_cpu=shape.name == "tiny")
            left = one.least_seconds(setting) - END_SECONDS - one.starts * shape.start_seconds
            assert left == one.work_seconds[setting.tiny], one.name


def test_what_was_cut_gets_half_as_much_again_but_never_more_than_a_call_has(tmp_path: Path) -> None:
    one = part("a", WRITES, seconds=75.0)
    called = course(tmp_path, one)
    called.outcomes = {"a": {"status": "cut", "cuts": 2}}
    assert called.shares([one], 300.0) == {"a": 300.0}
    assert called.shares([one], 200.0) == {}
    called.seconds = 200.0
    assert called.shares([one], 200.0) == {"a": 200.0}


def test_what_a_part_found_before_it_was_cut_is_kept_by_a_call_that_has_no_time_for_it(tmp_path: Path) -> None:
    one = part("a", WRITES, seconds=100.0)
    called = course(tmp_path, one)
    called.outcomes = {"a": {"status": "cut", "why": "it was not done", "cuts": 1}}
    called.run("a", 50.0)
    assert called.outcomes["a"]["status"] == "cut"


def test_a_call_that_is_killed_in_the_middle_leaves_no_process_and_the_next_one_goes_on(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from bench import stop, test_gpu_course as t\n"
        "folder = Path(sys.argv[1])\n"
        "stop.orderly(lambda: t.run(folder, t.part('a', t.WRITES), t.part('b', t.HANGS)))"
    )
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=environment)
    with descendants.of(process.pid) as seen:
        until(lambda: seen.named("engine-core"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == stop.STOPPED
        assert seen.left() == []
    assert run(tmp_path, part("a", WRITES), part("b", WRITES)) == {"a": "done", "b": "done"}
    assert runs(tmp_path, "a") == 1


def test_two_calls_at_once_in_one_folder_are_refused_in_one_line(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from bench.gpu.__main__ import alone; alone(Path(sys.argv[1]))"
    command = [sys.executable, "-c", script, str(tmp_path)]
    with alone(tmp_path):
        other = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(TESTS)}, capture_output=True, text=True)
        assert other.returncode == 1
        assert other.stderr.count("\n") == 1
        assert f"process {os.getpid()}:" in other.stderr
    assert not subprocess.run(command, env=os.environ | {"PYTHONPATH": str(TESTS)}).returncode


def test_a_call_ends_after_two_parts_in_a_row_without_an_engine_and_says_so(tmp_path: Path) -> None:
    had = "print('[bench] the engine is ready (9 s)', flush=True); sys.exit('lost')"
    parts = [part(name, "sys.exit('no CUDA')") for name in "abc"]
    called = course(tmp_path, *parts)
    called.run("abc", 60.0)
    assert list(called.outcomes) == ["a", "b"]
    assert "2 parts in a row" in table.markdown(called)
    assert course(tmp_path, *parts).waiting("abc")[0].name == "c"
    others = [part("a", "sys.exit('no CUDA')"), part("b", had), part("c", "sys.exit('no CUDA')")]
    for name in "abc":  # what an earlier call printed is no engine of this one
        (tmp_path / f"{name}.log").write_text("[bench] the engine is ready (9 s)\n")
    called = course(tmp_path, *parts)
    called.run("abc", 60.0)
    assert called.ended
    (tmp_path / "others").mkdir()
    assert list(run(tmp_path / "others", *others)) == ["a", "b", "c"]


def test_the_table_has_a_row_for_each_figure_and_says_of_every_part_what_became_of_it(tmp_path: Path) -> None:
    parts = [part("a", WRITES), part("b", "sys.exit('no such card')"), part("c", WRITES, 90.0), part("d", WRITES)]
    called = course(tmp_path, *parts)
    called.run(["a", "b", "c"], 60.0)
    lines = table.markdown(called).splitlines()
    assert "| (a) | file a | lines/s | 3 | 2 | 1.50 |  |" in lines
    assert "| (b) | file b | lines/s | – | 2 | 1.50 | failed: no such card |" in lines
    assert any(line.startswith("| (c) | what of c? |") and "no time" in line for line in lines)
    assert "| (d) | what of d? |  | – | – | – | not measured yet |" in lines


def test_every_part_of_the_course_has_rows_to_be_measured_before_it_has_run_and_a_command_for_each_shape() -> None:
    for one in PARTS:
        assert one.rows({}), one.name
        assert all(row.open for row in one.rows({})), one.name
        for shape in shapes.SHAPES.values():
            setting = Setting(shape, SETTING.models, on_cpu=shape.name == "tiny")
            command = one.command(setting, 3.0, Path("found.json"))
            assert find_spec(command[2]) is not None
            assert ("--engine-arg=--load-format=dummy" in command) is (shape.name != "tiny")
            assert {"--json", "found.json"} <= set(command)


def test_waiting_calls_say_how_many_rounds_they_had_and_how_many_were_refused() -> None:
    def arm(name: str, rounds: int, refused: int, ran_dry: int = 0) -> dict[str, Any]:
        figures = dict.fromkeys(("ttft_p50_ms", "ttft_p95_ms", "itl_p95_ms", "tokens_per_second"), 2.0)
        return {"arm": name, "rounds": rounds, "refused": refused, "ran_dry": ran_dry} | figures

    arms = [
        arm("none", 3, 0), arm("bare 256", 3, 4), arm("ours", 2, 0), arm("bare 256, long", 1, 0),
        arm("ours, long", 1, 0, 1),
    ]  # fmt: skip
    rows = lanes.PART.rows({"curve": arms})
    assert rows[0].remark == "rounds: 3"
    assert {row.remark for row in rows[1:5]} == {"rounds: 2 and 3; calls refused: 0 and 4"}
    assert {row.remark for row in rows[5:]} == {"rounds: 1; the batch ran dry"}


def test_a_figure_without_its_other_side_is_still_to_be_measured_unless_it_has_none() -> None:
    assert Row("file A", "lines/s", 3.0, None).open
    assert not Row("cold start", "s", 3.0, None, alone=True).open
    assert not Row("sleep", "s", None, None, alone=True, excuse="no sleep mode").open


def test_a_model_has_as_many_tokens_as_its_shape_and_each_is_text(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1}}}))
    shape = shapes.Llama("small", 64, 128, 2, 4, 2, vocabulary=5)
    folder = shapes.written(shape, plain, tmp_path / "small")
    words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    assert sorted(words.values()) == [0, 1, 2, 3, 4]
    config = json.loads((folder / "config.json").read_text())
    assert (config["vocab_size"], config["head_dim"], config["num_key_value_heads"]) == (5, 16, 2)
