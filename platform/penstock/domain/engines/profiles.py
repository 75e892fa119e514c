"""The engine profiles, by name: what `--engine` may say, and all that is known of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from penstock.domain.engines.profile import (
    EngineAbort,
    EnginePriority,
    EngineProfile,
    EngineSource,
    ErrorShape,
    LoadMetrics,
)

_VLLM_LOAD: Final = LoadMetrics(
    running="vllm:num_requests_running",
    waiting="vllm:num_requests_waiting",
    kv_usage="vllm:kv_cache_usage_perc",
    preemptions="vllm:num_preemptions_total",
    tokens=("vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
    steps=(
        "vllm:iteration_tokens_total_count",
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "vllm:request_success_total",
    ),
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
    adapters="/v1/load_lora_adapter",
    sleep="/sleep",
    takes_dtype=True,
    gaps=(
        "adapters are loaded at run time only with VLLM_ALLOW_RUNTIME_LORA_UPDATING=1",
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
    gaps=(
        "it answers whatever `model` a request names; which engine a request goes to is the platform's affair alone",
        "`logprobs` of /v1/completions have the shape of /v1/chat/completions",
        "an answer that nobody waits for any more, and that is no stream, goes on for a second or two",
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
    gaps=(
        "it answers greedily: it samples all requests as the first one asked, so `temperature` above 0 is refused",
        "`n`, `response_format`, `tool_choice`, `logprobs` and penalties, which it would silently ignore, are refused",
        "`ignore_eos` is not sent: it refuses it",
        "its answers say no cached tokens",
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
)
REMOTE: Final = EngineProfile(
    name="remote",
    words="any server with OpenAI's API, at an address",
    launch="penstock_worker.engine.remote.launch:launch",
    source=EngineSource.ADDRESS,
    busy_statuses=frozenset({429, 529}),
    gaps=("what it runs can change at any time, so its answers are not shared through the cache",),
)

_ALL: Final = (VLLM, LLAMACPP, TRANSFORMERS, ECHO, REMOTE)
PROFILES: Final[Mapping[str, EngineProfile]] = MappingProxyType({profile.name: profile for profile in _ALL})
