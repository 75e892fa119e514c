"""In the real vLLM's scheduler less urgent lanes stand still, and prompts of lines wait beside calls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from worker.forks import EACH_IN_A_FORK

# A scheduler of vLLM's in processes that load plugins as an engine's does: who takes part in each of its steps. vLLM is
# imported once, and a fork of that process takes each word of the operator's.
_SCHEDULED = """
import os, sys, time
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
os.environ["PENSTOCK_ENGINE_STEP_SHARE"] = said if said.isdigit() else "0"
os.environ["PENSTOCK_ENGINE_PREFILL_BUDGET"] = "off" if said.isdigit() else said
# A step takes 1 ms for each request that takes part, and 0.1 ms for each further token of its prompt.
clock = 0.0
time.monotonic = lambda: clock
load_general_plugins()
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

def add(name, priority, tokens, prompt=3):
    scheduler.add_request(Request(
        request_id=name, prompt_token_ids=[1] * prompt, priority=priority, pooling_params=None,
        sampling_params=SamplingParams(max_tokens=tokens, ignore_eos=True)))

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
        add(f"line{n}", 6, 200, prompt=50)
    for n in range(100):  # the cost is learned
        step()
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


@pytest.fixture(scope="module")
def scheduled(tiny_model: Path) -> str:
    """The steps of vLLM's own scheduler with the part of an eighth, without turns, with a prefill budget and not."""
    command = [sys.executable, "-c", _SCHEDULED, str(tiny_model), "8", "0", "on", "off"]
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
        steps = [line.split()[2:] for line in scheduled.splitlines() if line.startswith(f"step {said} ")]
        parts = [[one.split(":") for one in step] for step in steps]
        return [{name: int(tokens) for name, tokens in step if tokens != "1"} for step in parts]

    alone, *beside = prompts("on")
    assert alone == {"line8": 200, "line9": 200, "line10": 104}, "nobody calls: all that fits into 512 tokens"
    assert beside[0] == {"call": 100}
    assert 100 <= max(sum(step.values()) for step in beside[1:]) <= 130, "a step is twice as long as without them"
    assert sum(sum(step.values()) for step in beside[1:]) == 3 * 200
    assert prompts("off")[1] == {"call": 100, "line11": 200, "line12": 200}
