"""The real vLLM dies: killed in the middle of a slice, and by a poison line. Minutes, since each start takes one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from e2e.live import Platform, chat, said, until, up

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.engines, pytest.mark.timeout(1_500)]


@pytest.fixture(scope="module")
def vllm(short_dir: Path) -> Iterator[Platform]:
    """A platform with the real engine and the plugin that makes lines poisonous."""
    flags = ("--engine-arg=--max-model-len=512", "--engine-arg=--max-num-seqs=16")
    flags += ("--engine-arg=--logits-processors", "--engine-arg=vllm_poison:Poison")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    try:
        with up(short_dir / "vd", *flags, ready_seconds=360, slice_lines="20") as platform:
            yield platform
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def deaths(vllm: Platform) -> int:
    return vllm.ask("select value from counts where name = 'engine_death'") or 0


def test_kill_9_of_the_engine_in_the_middle_of_a_slice_loses_no_line_and_charges_none(vllm: Platform) -> None:
    lines = [chat(f"line-{n}", f"question {n}", temperature=0, max_tokens=120, ignore_eos=True) for n in range(60)]
    batch = vllm.submit(lines)

    def half_done() -> bool:
        return 4 <= (vllm.ask("select sum(completed) from slices where batch = %s", batch.id) or 0) < 50

    until(half_done, "some lines are answered, others in flight", 120)
    core = next(p for one in vllm.engine() for p in _named(one.pid, "EngineCore"))
    core.send_signal(signal.SIGKILL)
    ended = vllm.ended(batch.id, 600)
    assert ended.request_counts
    assert (ended.status, ended.request_counts.completed, ended.request_counts.failed) == ("completed", 60, 0)
    output = vllm.file(ended.output_file_id)
    assert [line["custom_id"] for line in output] == [f"line-{n}" for n in range(60)]
    assert all(line["response"]["body"]["usage"]["completion_tokens"] == 120 for line in output)
    assert vllm.ask("select sum(crashes) from slices where batch = %s", batch.id) == 0
    assert deaths(vllm) == 1


def test_a_poison_line_costs_four_engines_at_most_and_its_neighbours_are_answered(vllm: Platform) -> None:
    before = deaths(vllm)
    lines = [chat(f"line-{n}", f"question {n}", temperature=0, max_tokens=16) for n in range(60)]
    lines[27]["body"]["vllm_xargs"] = {"poison": 1}
    ended = vllm.ended(vllm.submit(lines).id, 1_200)
    assert ended.request_counts
    assert (ended.status, ended.request_counts.completed, ended.request_counts.failed) == ("completed", 59, 1)
    output, errors = vllm.file(ended.output_file_id), vllm.file(ended.error_file_id)
    assert [line["custom_id"] for line in output] == [f"line-{n}" for n in range(60) if n != 27]
    assert all(said(line) for line in output)
    assert [(line["custom_id"], line["error"]["code"]) for line in errors] == [("line-27", "engine_crash")]
    assert deaths(vllm) - before <= 4


def _named(pid: int, part: str) -> list[psutil.Process]:
    """The process, if it calls itself so; vLLM names its processes."""
    try:
        process = psutil.Process(pid)
        return [process] if any(part in word for word in [process.name(), *process.cmdline()]) else []
    except psutil.NoSuchProcess:
        return []
