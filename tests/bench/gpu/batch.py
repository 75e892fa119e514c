"""(b) Whole files against `vllm run-batch`, on the large model and on the small one; (d) embeddings; (f) a batch alone
against the engine's own offline throughput."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.gpu.part import Part, Row, Setting, benchmark
from bench.paired import median

_HALF_A_CARD: Final = "--gpu-memory-utilization=0.45"
"""Both sides' engines live on it side by side."""
ALONE_ROW: Final = "a batch alone, over `vllm bench throughput`"
_SEQS: Final = ("--max-num-seqs=256", "--max-num-batched-tokens=8192")


def _files(setting: Setting, minutes: float, json: Path) -> Sequence[str]:
    sizes = (
        ("--lines", "80", "--repeats", "2", "--scale", "0.15", "--warm-up", "40")
        if setting.tiny
        else ("--lines", "600", "--repeats", "4", "--warm-up", "256")
    )
    return _command(setting, setting.models.large, "ADF", sizes, minutes, json)


def _shared(setting: Setting, minutes: float, json: Path) -> Sequence[str]:
    sizes = (
        ("--lines", "80", "--repeats", "2", "--warm-up", "20")
        if setting.tiny
        else ("--lines", "1000", "--repeats", "4", "--shared-prompts", "80", "--cache-block", "16", "--warm-up", "256")
    )
    return _command(setting, setting.models.large, "B", sizes, minutes, json)


def _small(setting: Setting, minutes: float, json: Path) -> Sequence[str]:
    sizes = ("--lines", "1500", "--repeats", "4", "--warm-up", "600")
    return _command(setting, setting.models.small, "AF", sizes, minutes, json)


def _embeddings(setting: Setting, minutes: float, json: Path) -> Sequence[str]:
    sizes = (
        ("--lines", "400", "--repeats", "2", "--line-size", "64x1", "--warm-up", "100")
        if setting.tiny
        else ("--lines", "4000", "--repeats", "4", "--line-size", "128x1", "--warm-up", "1000")
    )
    return _command(setting, setting.models.embedder, "G", sizes, minutes, json)


def _alone(setting: Setting, minutes: float, json: Path) -> Sequence[str]:
    sizes = (
        ("--lines", "100", "--repeats", "2", "--line-size", "100x32", "--warm-up", "60")
        if setting.tiny
        else ("--lines", "800", "--repeats", "4", "--line-size", "512x128", "--warm-up", "256")
    )
    options = (*sizes, "--only-ours", "--offline")
    return _command(setting, setting.models.large, "A", options, minutes, json, "--gpu-memory-utilization=0.9")


def _command(
    setting: Setting, model: Path, files: str, options: Sequence[str], minutes: float, json: Path,
    memory: str = _HALF_A_CARD,
) -> Sequence[str]:  # fmt: skip
    arguments = setting.arguments(*(() if setting.tiny else _SEQS), *(() if setting.on_cpu else (memory,)))
    return benchmark(
        "batch", "--files", *files, "--model", str(model), *options, "--warm-up-files", "1", *arguments,
        "--minutes", f"{minutes:.2f}", "--json", str(json),
    )  # fmt: skip


def _rows(found: dict[str, Any], names: str) -> Sequence[Row]:
    table = {row["row"]: row for row in found.get("table", [])}
    return [_row(name, table.get(name), _excuse(found)) for name in names]


def _excuse(found: dict[str, Any]) -> str:
    return "the simulated engine has no other side" if found.get("asked", {}).get("engine") == "echo" else ""


def _row(name: str, row: dict[str, Any] | None, excuse: str) -> Row:
    if row is None:
        return Row(f"file {name}", "lines/s", None, None)
    ours, theirs = (_value(row[whose]["lines_per_second"]) for whose in ("ours", "theirs"))
    ratio = row["ratio"]
    spread = f"[{ratio['low']:.2f}, {ratio['high']:.2f}], {ratio['repeats']} repeats"
    spread = spread if ratio["repeats"] > 1 else "one repeat" if ratio["repeats"] else ""
    against = "against ours of A; " if name == "F" else ""
    return Row(f"file {name}, {row['words']}", "lines/s", ours, theirs, _value(ratio), against + spread, excuse=excuse)


def _value(estimate: dict[str, Any]) -> float | None:
    return float(estimate["value"]) if estimate["repeats"] else None


def _bound(found: dict[str, Any]) -> Sequence[Row]:
    """Tokens of prompts and answers a second: ours of the engine's own counters, over its offline throughput."""
    bound = found.get("offline", {}).get("tokens_per_second")
    loads = [pair["ours"] for pair in found.get("pairs", []) if pair["ours"]]
    runs = [(one["load"]["prompt_tokens"] + one["load"]["generation_tokens"]) / one["seconds"] for one in loads]
    ours = median(runs).value if runs else None
    ratio = ours / bound if ours and bound else None
    remark = f"lines of {found['asked']['line_size']}; theirs is the bound" if ratio else ""
    return [Row(ALONE_ROW, "tokens/s", ours, bound, ratio, remark, excuse=_excuse(found))]


FILES: Final = Part(
    "b", "what does a file cost through the platform, against `vllm run-batch`?", 2, (200.0, 60.0), 4.0,
    _files, lambda found: _rows(found, "ADF"),
)  # fmt: skip
SHARED: Final = Part(
    "b-shared", "what do shared prompts win that the cache can't hold?", 2, (50.0, 40.0), 1.0,
    _shared, lambda found: _rows(found, "B"),
)  # fmt: skip
EMBEDDINGS: Final = Part(
    "d", "embeddings, against `vllm run-batch`?", 2, (40.0, 35.0), 1.0, _embeddings, lambda found: _rows(found, "G")
)
ALONE: Final = Part(
    "f", "what does a batch alone reach of the engine's own offline throughput?", 2, (75.0, 40.0), 1.0, _alone, _bound
)
SMALL: Final = Part(
    "b-small", "the same on the small model, whose steps are short", 2, (70.0, 0.0), 1.0,
    _small, lambda found: _rows(found, "AF"), applies=lambda setting: setting.models.small != setting.models.large,
)  # fmt: skip
