"""The engine profiles, by name: what `--engine` may say, and all that is known of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from penstock.domain.engines.profile import (
    EngineAbort,
    EnginePriority,
    EngineProfile,
    EngineSleep,
    EngineSource,
    ErrorShape,
    Knob,
    LoadMetrics,
)

_VLLM_LOAD: Final = LoadMetrics(
    running="vllm:num_requests_running",
    waiting="vllm:num_requests_waiting",
    kv_usage="vllm:kv_cache_usage_perc",
    kv_config="vllm:cache_config_info",
    preemptions="vllm:num_preemptions_total",
    tokens=("vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
    prefix=("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"),
    steps=(
        "vllm:iteration_tokens_total_count",
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "vllm:request_success_total",
    ),
)

_VLLM_SLEEP: Final = EngineSleep(
    flag="--enable-sleep-mode",
    environment={"VLLM_SERVER_DEV_MODE": "1"},
    path="/sleep?level=1&mode=wait",
    wake_path="/wake_up",
    asked_path="/is_sleeping",
)

VLLM: Final = EngineProfile(
    name="vllm",
    words="vLLM, started here",
    launch="penstock_worker.engine.vllm.vllm_server:launch",
    source=EngineSource.MODEL,
    load=_VLLM_LOAD,
    priority=EnginePriority.LOW_FIRST,
    tokenizer="/tokenize",
    request_ids=True,
    cache_salt=True,
    takes_lists=True,
    adapters="/v1/load_lora_adapter",
    sleep=_VLLM_SLEEP,
    takes_dtype=True,
    knobs=(
        (Knob.GPUS, "--tensor-parallel-size"),
        (Knob.GPU_MEMORY, "--gpu-memory-utilization"),
        (Knob.SEQUENCES, "--max-num-seqs"),
        (Knob.STEP_TOKENS, "--max-num-batched-tokens"),
    ),
    gaps=(
        "adapters need --enable-lora, and Penstock in the engine's interpreter",
        "CPU builds refuse to sleep, or free nothing",
    ),
)
LLAMACPP: Final = EngineProfile(
    name="llamacpp",
    words="llama.cpp's server, started here, on a GGUF file",
    launch="penstock_worker.engine.llamacpp.launch:launch",
    source=EngineSource.GGUF,
    load=LoadMetrics(
        running="llamacpp:requests_processing",
        waiting="llamacpp:requests_deferred",
        tokens=("llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total"),
        steps=("llamacpp:n_decode_total", "llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total"),
        of_its_loop=True,
    ),
    knobs=((Knob.SEQUENCES, "--parallel"),),
    gaps=(
        "it answers whatever `model` a request names: that each goes to its own engine is the platform's affair alone",
        "what a request does not say is its own default: temperature 0.8, top_k 40, top_p 0.95, min_p 0.05",
        "`logprobs` of /v1/completions have the shape of /v1/chat/completions",
        "an answer that nobody waits for any more, and that is no stream, goes on for a second or two",
        "its /tokenize has a shape of its own",
    ),
)
TRANSFORMERS: Final = EngineProfile(
    name="transformers",
    words="`transformers serve`, started here",
    launch="penstock_worker.engine.transformers.launch:launch",
    source=EngineSource.MODEL,
    abort=EngineAbort.NONE,
    errors=ErrorShape.DETAIL,
    takes_dtype=True,
    knobs=((Knob.SEQUENCES, "--max-num-seqs"), (Knob.STEP_TOKENS, "--cb-max-batch-tokens")),
    gaps=(
        "it answers greedily: it would sample all requests as the first one asked, so `temperature` above 0 is refused",
        "`n` above 1, `response_format`, `tool_choice`, `logprobs`, `stop`, biases and penalties are refused, since it"
        " would silently ignore them",
        "`ignore_eos` is not sent, since it refuses it",
        "a prompt that is longer than the model's context is answered all the same, with nonsense",
        "its answers say no cached tokens",
        "that its loop hangs while its server answers is not seen",
    ),
)
ECHO: Final = EngineProfile(
    name="echo",
    words="a simulation for tests; it is no model",
    launch="penstock_worker.engine.echo.launch:launch",
    source=EngineSource.NOTHING,
    load=_VLLM_LOAD,
    priority=EnginePriority.LOW_FIRST,
    tokenizer="/tokenize",
    request_ids=True,
    cache_salt=True,
    takes_lists=True,
    adapters="/v1/load_lora_adapter",
    knobs=((Knob.SEQUENCES, "--max-num-seqs"),),
    sleep=replace(_VLLM_SLEEP, memory_metric="echo:device_memory_bytes"),
)
REMOTE: Final = EngineProfile(
    name="remote",
    words="any server with OpenAI's API, at an address",
    launch="penstock_worker.engine.remote.launch:launch",
    source=EngineSource.ADDRESS,
    busy_statuses=frozenset({429, 529}),
    gaps=("what it runs can change at any time, so its answers are not shared through the cache",),
)

VLLM_REMOTE: Final = replace(
    REMOTE,
    name="vllm-remote",
    words="vLLM, at an address",
    load=_VLLM_LOAD,
    tokenizer="/tokenize",
    request_ids=True,
    cache_salt=True,
    adapters=VLLM.adapters,
    gaps=(
        *REMOTE.gaps,
        "it takes `priority` only if it was started with --scheduling-policy priority: then say --priority=low_first",
    ),
)
SGLANG: Final = replace(
    REMOTE,
    name="sglang",
    words="SGLang, at an address",
    load=LoadMetrics(
        running="sglang:num_running_reqs",
        waiting="sglang:num_queue_reqs",
        kv_usage="sglang:token_usage",
        tokens=("sglang:prompt_tokens_total", "sglang:generation_tokens_total"),
        steps=("sglang:prompt_tokens_total", "sglang:generation_tokens_total", "sglang:num_requests_total"),
    ),
    abort=EngineAbort.REQUEST_ID,
    busy_statuses=REMOTE.busy_statuses | {503},
    errors=ErrorShape.FLAT,
    adapters="/load_lora_adapter",
    gaps=(
        *REMOTE.gaps,
        "its metrics are there only with --enable-metrics",
        "it takes `priority` only with --enable-priority-scheduling: then say --priority=high_first, or low_first with"
        " --schedule-low-priority-values-first",
        "a client that leaves is noticed reliably only while it streams, so requests are aborted by their ids",
    ),
)
TGI: Final = replace(
    REMOTE,
    name="tgi",
    words="Text Generation Inference, at an address",
    load=LoadMetrics(
        running="tgi_batch_current_size",
        waiting="tgi_queue_size",
        steps=("tgi_batch_inference_count", "tgi_request_count"),
    ),
    errors=ErrorShape.TEXT,
    gaps=(
        *REMOTE.gaps,
        "it has been archived since March 2026",
        "its /tokenize has a shape of its own",
        "it serves chat and text completions alone",
    ),
)
OPENLLM: Final = replace(
    REMOTE,
    name="openllm",
    words="OpenLLM (BentoML), at an address",
    health_paths=("/readyz", "/livez"),
    gaps=(*REMOTE.gaps, "the vLLM in it is behind BentoML: its metrics and its tokenizer are not reached"),
)
OLLAMA: Final = replace(
    REMOTE,
    name="ollama",
    words="Ollama, at an address",
    health_paths=("/api/version",),
    busy_statuses=REMOTE.busy_statuses | {503},
    gaps=(
        *REMOTE.gaps,
        "it loads a model with the first request for it, so the first answer takes as long",
        "it answers OLLAMA_NUM_PARALLEL requests at once, and queues the others itself: say as many with"
        " --max-num-seqs",
    ),
)

_ALL: Final = (VLLM, LLAMACPP, TRANSFORMERS, ECHO, REMOTE, VLLM_REMOTE, SGLANG, TGI, OPENLLM, OLLAMA)
PROFILES: Final[Mapping[str, EngineProfile]] = MappingProxyType({profile.name: profile for profile in _ALL})
