"""Less urgent lanes stand still beside more urgent ones, in the real vLLM's scheduler, and nobody else does."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from worker.forks import EACH_IN_A_FORK

from penstock.domain.work.rank import Rank
from penstock_worker.engine.launch_spec import BadLaunch
from penstock_worker.engine.vllm import step_time_slicing

# A scheduler of vLLM's in processes that load plugins as an engine's does: who takes part in each of its steps. vLLM is
# imported once, and a fork of that process takes each word of the operator's.
_SCHEDULED = """
import os, sys
import torch
import vllm.v1.engine.core  # as in the engine's own process
from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.plugins import load_general_plugins
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

words = sys.argv[2:]
"""
_SCHEDULED += EACH_IN_A_FORK
_SCHEDULED += """
os.environ["PENSTOCK_ENGINE_STEP_SHARE"] = said
load_general_plugins()
# A step takes 1 ms for each request that takes part.
from penstock_worker.engine.vllm import step_time_slicing as turns
clock = 0.0
turns.time = type("Clock", (), {"monotonic": staticmethod(lambda: clock)})
model = ModelConfig(model=sys.argv[1], dtype="float32", seed=0)
config = VllmConfig(
    model_config=model,
    scheduler_config=SchedulerConfig(
        max_num_seqs=16, max_num_batched_tokens=512, max_model_len=256, enable_chunked_prefill=True,
        is_encoder_decoder=False, policy="priority", async_scheduling=True),
    cache_config=CacheConfig(block_size=16, enable_prefix_caching=False),
    device_config=DeviceConfig("cpu"),
)
spec = FullAttentionSpec(block_size=16, num_kv_heads=1, head_size=16, dtype=torch.float32)
kv = KVCacheConfig(num_blocks=1000, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)])
config.cache_config.num_gpu_blocks = 1000
scheduler = AsyncScheduler(
    vllm_config=config, kv_cache_config=kv, log_stats=False, block_size=16,
    structured_output_manager=StructuredOutputManager(config))

def add(name, priority, tokens):
    scheduler.add_request(Request(
        request_id=name, prompt_token_ids=[1, 2, 3], priority=priority, pooling_params=None,
        sampling_params=SamplingParams(max_tokens=tokens, ignore_eos=True)))

def step():
    global clock
    output = scheduler.schedule()
    names = sorted(output.num_scheduled_tokens)
    clock += len(names) / 1000
    scheduler.update_from_output(output, ModelRunnerOutput(
        req_ids=names, req_id_to_index={name: place for place, name in enumerate(names)},
        sampled_token_ids=[[7] for _ in names]))
    return " ".join(names)

add("flex", 8, 100)
add("standard", 6, 100)
print("step", said, step(), flush=True)
add("urgent", 4, 40)
add("call", 2, 100)
print("step", said, step())
add("late", 8, 100)
for _ in range(44):
    print("step", said, step())
"""


CALL, URGENT, LINE, FLEX = (rank.priority() for rank in (Rank.REALTIME, Rank.PRIORITY, Rank.STANDARD, Rank.FLEX))
AHEAD = Rank.STANDARD.priority(ahead=True)


class Steps:
    """An engine whose steps take as long as they are told, by the priorities of those who take part."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cost: dict[int, float]) -> None:
        self.now, self.cost, self.spent = 0.0, cost, Counter[int]()
        monkeypatch.setattr(step_time_slicing.time, "monotonic", lambda: self.now)
        self.turns = step_time_slicing.StepTimeSlicing(8)

    def run(self, seconds: float, *running: int, under_way: int = 2) -> dict[int, float]:
        """Which part of the time each priority takes part in; so many steps are made before the first one ends."""
        before, began, made = Counter(self.spent), self.now, list[tuple[object, list[int]]]()
        while self.now - began < seconds:
            last = self.turns.last(running)
            made.append((object(), [priority for priority in running if priority <= last]))
            self.turns.made(made[-1][0])
            if len(made) == under_way:
                step, there = made.pop(0)
                took = sum(self.cost[priority] for priority in there)
                self.now += took
                self.spent.update(dict.fromkeys(there, took))
                self.turns.ended(step)
        for step, _ in made:
            self.turns.ended(step)
        return {one: (self.spent[one] - before[one]) / (self.now - began) for one in running}


@pytest.mark.parametrize("under_way", [1, 2, 3])
def test_less_urgent_lanes_get_an_eighth_of_the_time_whatever_their_steps_cost(
    monkeypatch: pytest.MonkeyPatch, under_way: int
) -> None:
    steps = Steps(monkeypatch, {CALL: 0.001, URGENT: 0.01, LINE: 0.1, FLEX: 0.05})
    part = steps.run(60, URGENT, LINE, FLEX, under_way=under_way)
    assert part == pytest.approx({URGENT: 1, LINE: 0.125, FLEX: 0.125}, abs=0.01)


@pytest.mark.parametrize("under_way", [1, 2])
def test_those_of_a_lane_whom_others_pass_get_half_of_it(monkeypatch: pytest.MonkeyPatch, under_way: int) -> None:
    steps = Steps(monkeypatch, {AHEAD: 0.01, LINE: 0.1, FLEX: 0.1})
    assert steps.run(60, AHEAD, LINE, under_way=under_way)[LINE] == pytest.approx(0.5, abs=0.02)
    both = steps.run(60, AHEAD, LINE, FLEX, under_way=under_way)
    assert both[LINE] == pytest.approx(0.5, abs=0.02)
    assert both[FLEX] == pytest.approx(0.125, abs=0.02)


@pytest.mark.parametrize("crowd", [(FLEX,), (FLEX, FLEX), (LINE,), (10,)])
def test_those_who_are_alone_have_all_of_it(monkeypatch: pytest.MonkeyPatch, crowd: tuple[int, ...]) -> None:
    steps = Steps(monkeypatch, dict.fromkeys(crowd, 0.01))
    assert set(steps.run(1, *crowd).values()) == {1.0}


def test_what_was_before_counts_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(monkeypatch, {URGENT: 0.01, FLEX: 0.01})
    steps.run(100, FLEX)
    assert steps.run(10, URGENT, FLEX)[FLEX] == pytest.approx(0.125, abs=0.01)
    steps.run(100, URGENT)
    assert steps.run(10, URGENT, FLEX)[FLEX] == pytest.approx(0.125, abs=0.01)


def test_one_who_waits_for_room_keeps_nobody_from_making_it() -> None:
    made = step_time_slicing.StepTimeSlicing(8)
    assert made.last([FLEX, FLEX], [URGENT]) >= FLEX
    assert made.last([URGENT, FLEX], [FLEX]) == FLEX - 1
    assert made.last([URGENT], [FLEX]) == FLEX - 1, "who waits behind waits until it is due"


def test_an_operators_word_stands() -> None:
    assert step_time_slicing.environment({}) == {step_time_slicing.VARIABLE: "8"}
    assert step_time_slicing.environment({step_time_slicing.VARIABLE: "0"}) == {step_time_slicing.VARIABLE: "0"}
    for wrong in ("-1", "1001", "often", "2.5"):
        with pytest.raises(BadLaunch, match=f"from 0 to 1000, not '{wrong}'"):
            step_time_slicing.environment({step_time_slicing.VARIABLE: wrong})


@pytest.fixture(scope="module")
def scheduled(tiny_model: Path) -> str:
    """The steps of vLLM's own scheduler with the part of an eighth, and without turns."""
    done = subprocess.run(
        [sys.executable, "-c", _SCHEDULED, str(tiny_model), "8", "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert "no turns" not in done.stderr
    return done.stdout


@pytest.mark.timeout(300)  # vLLM is imported
@pytest.mark.parametrize("said", ["8", "0"])
def test_vllms_own_scheduler_gives_the_less_urgent_their_part(said: str, scheduled: str) -> None:
    steps = [line.split()[2:] for line in scheduled.splitlines() if line.startswith(f"step {said} ")]
    together = ["call", "flex", "late", "standard", "urgent"]
    assert steps[0] == ["flex", "standard"]
    beside = [step for step in steps if "urgent" in step]
    assert len(beside) == 40, "the urgent one is in each step until it is done"
    if said == "0":
        assert beside[1:] == [together] * 39
        return
    assert beside[0] == ["call", "standard", "urgent"], "who comes in does not wait, and was not known before"
    assert {tuple(step) for step in beside[1:]} == {tuple(together), ("call", "urgent")}, "all who are behind, or none"
    seconds = {True: 0, False: 0}
    for step in beside[1:]:
        seconds[step == together] += len(step)
    assert abs(seconds[True] - sum(seconds.values()) / 8) <= len(together), "an eighth, but for one step"
    rest = {tuple(step) for step in steps if "urgent" not in step and "call" in step}
    assert rest <= {("call", "standard"), ("call", "flex", "late", "standard")}
