"""vLLM's own Python names that the benchmarks use: the one file that knows where each stands in which version.

It runs in the engine's interpreter and needs nothing but the standard library and vLLM. The newest place comes first.

    python -m bench.vllm_api FOLDER        whether a vLLM's source (the folder `vllm`) has each name and flag
    python -m bench.vllm_api sleep         whether the installed one has a sleep mode on this machine
    python -m bench.vllm_api throughput …  `vllm bench throughput …`, also where the `vllm` command does not start
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

PLACES: Final = {
    # 0.32 moved what starts servers and engines to `launchers`; 0.25 has it in `openai`.
    "build_async_engine_client": ("vllm.entrypoints.launchers.api_server.entry", "vllm.entrypoints.openai.api_server"),
    "run_batch": ("vllm.entrypoints.launchers.run_batch", "vllm.entrypoints.openai.run_batch"),
    "make_arg_parser": ("vllm.entrypoints.launchers.run_batch", "vllm.entrypoints.openai.run_batch"),
    "FlexibleArgumentParser": ("vllm.utils.argparse_utils",),
    "UsageContext": ("vllm.usage.usage_lib",),
    "add_cli_args": ("vllm.benchmarks.throughput",),
    "main": ("vllm.benchmarks.throughput",),
    "current_platform": ("vllm.platforms",),
}
FLAGS: Final = {
    "engine/arg_utils.py": (
        "--max-num-seqs", "--max-num-batched-tokens", "--enforce-eager", "--block-size", "--num-gpu-blocks-override",
        "--load-format", "--dtype", "--gpu-memory-utilization", "--scheduling-policy", "--enable-sleep-mode",
        "--runner", "--convert",
    ),
    "benchmarks/throughput.py": ("--dataset-name", "--num-prompts", "--num-warmups", "--output-json"),
    "benchmarks/datasets/datasets.py": ("--random-input-len", "--random-output-len"),
}  # fmt: skip
"""What engines and `vllm bench throughput` are told, and the file that knows it."""


def get(name: str) -> Any:
    """The object of this name, wherever this vLLM has it. Raises ImportError."""
    for module in PLACES[name]:
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            last = error
    raise ImportError(f"this vLLM has no {name} in {' or '.join(PLACES[name])}") from last


def missing(source: Path) -> list[str]:
    """What a vLLM's source lacks of all this; nothing of it is imported."""
    lacking = [
        f"{name} in {' or '.join(modules)}"
        for name, modules in PLACES.items()
        if not any(name in set(_names(_file(source, module))) for module in modules)
    ]
    for file, flags in FLAGS.items():
        text = (source / file).read_text() if (source / file).exists() else ""
        lacking += [f"{flag} in {file}" for flag in flags if f'"{flag}"' not in text]
    return lacking


def where(source: Path) -> dict[str, str]:
    """In which of its places a vLLM's source has each name."""
    return {
        name: module
        for name, modules in PLACES.items()
        for module in reversed(modules)
        if name in set(_names(_file(source, module)))
    }


def _file(source: Path, module: str) -> Path:
    path = source.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _names(file: Path) -> Iterator[str]:
    """The names that a module's own text gives to others: defined, assigned, or listed in `__all__`."""
    if not file.exists():
        return
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
            yield from targets
            if targets == ["__all__"]:
                yield from ast.literal_eval(node.value)


def main(arguments: list[str]) -> None:
    """Do what the first argument says."""
    match arguments:
        case ["sleep"]:
            print(bool(get("current_platform").is_sleep_mode_available()))
        case ["throughput", *given]:
            parser = get("FlexibleArgumentParser")()
            get("add_cli_args")(parser)
            get("main")(parser.parse_args(given))
        case [folder] if Path(folder).is_dir():
            for name, module in where(Path(folder)).items():
                print(f"{name}: {module}")
            if lacking := missing(Path(folder)):
                sys.exit(f"missing: {'; '.join(lacking)}")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
