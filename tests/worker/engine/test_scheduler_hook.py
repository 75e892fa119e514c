"""In the real vLLM's scheduler less urgent lanes stand still, and prompts of lines wait beside calls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from worker.forks import EACH_IN_A_FORK

from penstock_worker.engine.vllm import scheduler_hook

# A scheduler of vLLM's in processes that load plugins as an engine's does: who takes part in each of its steps. vLLM is
# imported once, and a fork of that process takes each word of the operator's.
_SCHEDULED = """
import os, sys, time
import torch
import vllm.v1.engine.core  # as in the engine's own process
from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.config.lora import LoRAConfig
from vllm.lora.request import LoRARequest
from vllm.plugins import load_general_plugins
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

words = sys.argv[2:]
model = ModelConfig(model=sys.argv[1], dtype="float32", seed=0)
"""
_SCHEDULED += EACH_IN_A_FORK
_SCHEDULED += """
os.environ["PENSTOCK_ENGINE_STEP_SHARE"] = said if said.isdigit() else "0"
os.environ["PENSTOCK_ENGINE_PREFILL_BUDGET"] = "off" if said.isdigit() or said == "off" else "on"
# A step takes 1 ms for each request that takes part, and 0.1 ms for each further token of its prompt.
clock = 0.0
time.monotonic = lambda: clock
load_general_plugins()
config = VllmConfig(
    model_config=model,
    scheduler_config=SchedulerConfig(
        max_num_seqs=16, max_num_batched_tokens=512, max_model_len=256, enable_chunked_prefill=said != "whole",
        is_encoder_decoder=False, policy="priority", async_scheduling=True),
    cache_config=CacheConfig(block_size=16, enable_prefix_caching=False),
    device_config=DeviceConfig("cpu"),
)
spec = FullAttentionSpec(block_size=16, num_kv_heads=1, head_size=16, dtype=torch.float32)
blocks = 150 if said == "full" else 1000
kv = KVCacheConfig(num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)])
config.cache_config.num_gpu_blocks = blocks
if said == "adapters":
    config.lora_config = LoRAConfig(max_loras=1, max_lora_rank=8)
config.scheduler_config.enable_chunked_prefill = said != "whole"
scheduler = AsyncScheduler(
    vllm_config=config, kv_cache_config=kv, log_stats=False, block_size=16,
    structured_output_manager=StructuredOutputManager(config))

scheduler.max_model_len = 4_096

def add(name, priority, tokens, prompt=3, adapter=0):
    scheduler.add_request(Request(
        request_id=name, prompt_token_ids=[1] * prompt, priority=priority, pooling_params=None,
        sampling_params=SamplingParams(max_tokens=tokens, ignore_eos=True),
        lora_request=LoRARequest(f"adapter{adapter}", adapter, "/none") if adapter else None))

def step():
    global clock
    output = scheduler.schedule()
    tokens = output.num_scheduled_tokens
    names = sorted(tokens)
    clock += len(names) / 1000 + sum(count - 1 for count in tokens.values()) / 10_000
    ready = [name for name in names if not scheduler.requests[name].is_prefill_chunk]
    scheduler.update_from_output(output, ModelRunnerOutput(
        req_ids=names, req_id_to_index={name: place for place, name in enumerate(names)},
        sampled_token_ids=[[7] if name in ready else [] for name in names]))
    return " ".join(f"{name}:{tokens[name]}" if with_tokens else name for name in names)

with_tokens = not said.isdigit()
if with_tokens:
    for n in range(8):
        add(f"line{n}", 6, 200, prompt=50, adapter=int(said == "adapters"))
    for n in range(100):  # the cost is learned
        step()
    if said == "full":
        for n in range(8, 13):
            add(f"line{n}", 6, 50, prompt=200)
        for _ in range(4):
            step()
        add("call", 2, 3, prompt=250)
    elif said == "begun":
        add("long", 6, 50, prompt=3_000)
        step()
        add("call", 2, 20, prompt=100)
    elif said == "adapters":
        add("call", 2, 3, prompt=100, adapter=2)
    elif said == "whole":
        add("long", 6, 50, prompt=400)
        add("call", 2, 3, prompt=100)
    if said not in ("on", "off"):
        for _ in range(200):
            print("step", said, step(), flush=True)
        sys.exit()
    for n in range(8, 11):
        add(f"line{n}", 6, 50, prompt=200)
    print("step", said, step(), flush=True)
    for _ in range(3):
        step()
    for n in range(11, 14):
        add(f"line{n}", 6, 50, prompt=200)
    add("call", 2, 3, prompt=100)
    for _ in range(20):
        print("step", said, step(), flush=True)
    sys.exit()
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


_WORDS = ("8", "0", "on", "off", "full", "begun", "adapters", "whole")


@pytest.fixture(scope="module")
def scheduled(tiny_model: Path) -> str:
    """The steps of vLLM's own scheduler with the part of an eighth, without turns, with a prefill budget and not."""
    command = [sys.executable, "-c", _SCHEDULED, str(tiny_model), *_WORDS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert "no turns" not in done.stderr
    assert "not bounded" not in done.stderr
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


@pytest.mark.timeout(300)
def test_beside_a_call_vllms_own_scheduler_computes_few_tokens_of_lines_prompts(scheduled: str) -> None:
    def prompts(said: str) -> list[dict[str, int]]:
        return [{name: tokens for name, tokens in step.items() if tokens > 1} for step in steps(scheduled, said)]

    alone, *beside = prompts("on")
    assert alone == {"line8": 200, "line9": 200, "line10": 104}, "nobody calls: all that fits into 512 tokens"
    assert beside[0] == {"call": 100}
    assert 100 <= max(sum(step.values()) for step in beside[1:]) <= 130, "a step is twice as long as without them"
    assert sum(sum(step.values()) for step in beside[1:]) == 3 * 200
    assert prompts("off")[1] == {"call": 100, "line11": 200, "line12": 200}


def steps(scheduled: str, said: str) -> list[dict[str, int]]:
    """The tokens of each request in each step."""
    found = [line.split()[2:] for line in scheduled.splitlines() if line.startswith(f"step {said} ")]
    return [{name: int(tokens) for name, tokens in (one.split(":") for one in step)} for step in found]


@pytest.mark.timeout(300)
def test_a_call_that_waits_for_blocks_which_lines_hold_is_let_in_as_soon_as_without_a_budget(scheduled: str) -> None:
    found = steps(scheduled, "full")
    first = next(place for place, step in enumerate(found) if "call" in step)
    assert 10 < first < 150, "it had to wait for blocks, and lines ended meanwhile"
    assert sum(not step for step in found[:first]) <= 3, "no step goes by without anybody"


@pytest.mark.timeout(300)
def test_a_calls_next_token_waits_for_no_half_computed_prompt_of_a_line(scheduled: str) -> None:
    found = steps(scheduled, "begun")
    assert found[0] == {"call": 100}
    assert all("call" in step for step in found[:20])
    assert sum(step.get("long", 0) for step in found[1:20]) > 1_000, "which goes on meanwhile"


@pytest.mark.timeout(300)
def test_no_more_adapters_get_in_than_there_is_room_for(scheduled: str) -> None:
    found = steps(scheduled, "adapters")
    assert not any("call" in step and "line0" in step for step in found)
    assert any("call" in step for step in found), "once the lines with the other adapter are done"


@pytest.mark.timeout(300)
def test_where_prompts_are_not_parted_nothing_is_bounded(scheduled: str) -> None:
    found = steps(scheduled, "whole")
    assert found[0]["call"] == 100
    assert found[0]["long"] == 400


def test_a_failure_of_ours_leaves_each_step_to_the_engine(caplog: pytest.LogCaptureFixture) -> None:
    class Scheduler:
        max_num_scheduled_tokens = 512

        def schedule(self) -> str:
            return "a step"

        def update_from_output(self, step: str) -> str:
            return f"{step} is over"

    scheduler_hook.install(Scheduler, lambda scheduler: scheduler.not_there)
    scheduler = Scheduler()
    assert [scheduler.update_from_output(scheduler.schedule()) for _ in range(2)] == ["a step is over"] * 2
    assert caplog.text.count("Steps are vLLM's own from now on") == 1
