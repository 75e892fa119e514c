"""(a) Waiting calls beside a batch that fills the engine, mixed lines and equal ones, bare and ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.gpu.part import LEAST_MINUTES, Part, Row, Setting, benchmark
from bench.lanes_report import LONG

_TINY: Final = (
    "--bare-seqs", "32", "--bare-in-flight", "32", "--rounds", "1", "--long-rounds", "1", "--seconds", "5",
    "--settle-seconds", "2", "--warm-up", "120", "--burst", "5", "--scale", "0.15", "--long-lines", "40x96",
)  # fmt: skip
_GPU: Final = (
    "--bare-seqs", "256", "--bare-in-flight", "256", "--rounds", "3", "--long-rounds", "2", "--seconds", "10",
    "--warm-up", "300", "--long-lines", "137x512",
)  # fmt: skip
_FIGURES: Final = (
    ("TTFT p50", "ttft_p50_ms", "ms"), ("TTFT p95", "ttft_p95_ms", "ms"), ("ITL p95", "itl_p95_ms", "ms"),
    ("batch", "tokens_per_second", "tokens/s"),
)  # fmt: skip


def _command(setting: Setting, minutes: float, json: Path) -> Sequence[str]:
    options = _TINY if setting.tiny else _GPU
    minutes = max(
        LEAST_MINUTES, minutes - setting.shape.start_seconds / 60
    )  # ours starts when the bare one's rounds are over
    return benchmark(
        "lanes", "--parts", "bare", "lanes", "long", "--in-flight", "--model", str(setting.models.large), *options,
        *setting.arguments(f"--max-num-seqs={options[1]}"), "--minutes", f"{minutes:.2f}", "--json", str(json),
    )  # fmt: skip


def _rows(found: dict[str, Any]) -> Sequence[Row]:
    arms = {row["arm"]: row for row in found.get("curve", [])}
    alone = arms.get("none")
    rows = [Row("TTFT p50, calls alone", "ms", _figure(alone, "ttft_p50_ms"), None, remark=_remark(alone), alone=True)]
    for lines, end in (("mixed", ""), ("equal", LONG)):
        ours = arms.get(f"ours{end}")
        bare = [arm for arm in arms if arm.startswith("bare") and arm.endswith(LONG) == bool(end)]
        theirs = arms[bare[0]] if bare else None
        for name, figure, unit in _FIGURES:
            one, other = _figure(ours, figure), _figure(theirs, figure)
            ratio = one / other if one is not None and other else None
            what = f"{name} beside {lines} lines" if unit == "ms" else f"batch of {lines} lines"
            rows.append(Row(what, unit, one, other, ratio, _remark(ours, theirs)))
    return rows


def _remark(*arms: dict[str, Any] | None) -> str:
    """Rounds and refused calls of these arms, ours first, and whether ours ran dry."""
    found = [arm for arm in arms if arm]
    words = [f"rounds: {_each(found, 'rounds')}"] if found else []
    words += [f"calls refused: {_each(found, 'refused')}"] if any(arm["refused"] for arm in found) else []
    return "; ".join([*words, *(["the batch ran dry"] if found and found[0]["ran_dry"] else [])])


def _each(arms: Sequence[dict[str, Any]], name: str) -> str:
    """One figure if it is the same for all, else one for each."""
    return " and ".join(dict.fromkeys(str(arm[name]) for arm in arms))


def _figure(arm: dict[str, Any] | None, name: str) -> float | None:
    value = arm and arm[name]
    return value["value"] if isinstance(value, dict) else value


PART: Final = Part(
    "a", "do waiting calls stay fast beside a full batch?", 2, (180.0, 100.0), 3.0, _command, _rows
)  # fmt: skip
