"""(c) What the path of a waiting call adds to its first token, on the small model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.gpu.part import Part, Row, Setting, benchmark


def _command(setting: Setting, minutes: float, json: Path) -> Sequence[str]:
    sizes = ("--repeats", "15", "--warm-up", "100") if setting.tiny else ("--repeats", "100", "--warm-up", "300")
    return benchmark(
        "sync", "--parts", "latency", "--model", str(setting.models.small), *sizes, *setting.arguments(),
        "--minutes", f"{minutes:.2f}", "--json", str(json),
    )  # fmt: skip


def _rows(found: dict[str, Any]) -> Sequence[Row]:
    by_callers = {row["callers"]: row for row in found.get("latency", [])}
    return [_row(callers, by_callers.get(callers)) for callers in (1, 8)]


def _row(callers: int, row: dict[str, Any] | None) -> Row:
    what = f"TTFT p50, {callers} caller{'s' if callers > 1 else ''}"
    if row is None:
        return Row(what, "ms", None, None)
    ttft = row["ttft_ms"]
    ours, theirs, added = ttft["path"]["p50"], ttft["direct"]["p50"], ttft["added"]
    spread = f"[{added['low']:.2f}, {added['high']:.2f}], {added['repeats']} pairs"
    return Row(what, "ms", ours, theirs, ours / theirs, f"the path adds {added['value']:.2f} ms {spread}")


PART: Final = Part("c", "what does the path of a waiting call cost?", 1, (45.0, 35.0), 1.0, _command, _rows)
