"""The report of `make bench-batch`: each row's ratio beside its target, where its time went, what its engine did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from bench import paired, result
from bench.batch_files import ROWS
from bench.batch_ours import Done
from bench.paired import Estimate
from rich.console import Console
from rich.table import Table

PHASES: Final = ("validate", "first_segment_after", "generate", "assemble", "post")


def line(pair: dict[str, Any]) -> str:
    """One repeat in a line, as it comes."""
    shown = []
    for whose in ("theirs", "ours"):
        if pair[whose]:
            done = Done.read(pair[whose])
            words = pair.get("against", whose) if whose == "theirs" else whose
            shown.append(f"{words} {done.lines_per_second:.1f}/s, {done.load.mean_running:.0f} running")
    if "without" in pair:
        done = Done.read(pair["without"])
        shown.append(f"ours without {pair['off']} {done.lines_per_second:.1f}/s, {done.load.hit_rate:.0%} prefix hits")
    ratio = f", ratio {_ratio(pair):.3f}" if pair["ours"] and pair["theirs"] else ""
    phases = (pair["ours"] or {}).get("phases", {})
    spent = "".join(f", {name} {value:.1f} s" for name, value in phases.items() if name in PHASES)
    return f"{pair['row']} (repeat {pair['repeat']}): {'; '.join(shown)}{ratio}{_alike(pair.get('vectors'))}{spent}"


def _alike(vectors: dict[str, float] | None) -> str:
    if vectors is None:
        return ""
    if "scores_apart" in vectors:
        how = f"scores apart {vectors['scores_apart']:.1e}"
    else:
        how = f"least cosine {vectors['least_cosine']:.6f}"
    return f", {how}, usage equal {vectors['equal_usage']} of {vectors['lines']}"


def _ratio(pair: dict[str, Any]) -> float:
    return Done.read(pair["ours"]).lines_per_second / Done.read(pair["theirs"]).lines_per_second


def table(pairs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row over its repeats: medians, and the median of the paired ratios."""
    found = []
    for name in dict.fromkeys(pair["row"] for pair in pairs):
        own = [pair for pair in pairs if pair["row"] == name]
        both = [pair for pair in own if pair["ours"] and pair["theirs"]]
        row: dict[str, Any] = {"row": name, "words": ROWS[name].words, "target": ROWS[name].target}
        row["ratio"] = paired.median([_ratio(pair) for pair in both]).json()
        row["ratio_with_transfers"] = paired.median([_with_transfers(pair) for pair in both]).json()
        for whose in ("theirs", "ours"):
            done = [Done.read(pair[whose]) for pair in own if pair[whose]]
            row[whose] = {
                "lines_per_second": paired.median([one.lines_per_second for one in done]).json(),
                "running": _median(done, lambda one: one.load.mean_running),
                "prefix_hit_rate": _median(done, lambda one: one.load.hit_rate),
                "engine_prompt_tokens": _median(done, lambda one: one.load.prompt_tokens),
                "engine_output_tokens": _median(done, lambda one: one.load.generation_tokens),
            }
        ours = [Done.read(pair["ours"]) for pair in own if pair["ours"]]
        row["phases"] = {
            phase: paired.percentile([one.phases[phase] for one in ours if phase in one.phases], 50)
            for phase in PHASES
            if any(phase in one.phases for one in ours)
        }
        without = [Done.read(pair["without"]) for pair in own if "without" in pair]
        row["ours_without"] = {
            "off": next((pair["off"] for pair in own if "without" in pair), None),
            "lines_per_second": paired.median([one.lines_per_second for one in without]).json(),
            "prefix_hit_rate": _median(without, lambda one: one.load.hit_rate),
        }
        row["transfer_seconds"] = _median(ours, lambda one: one.upload_seconds + one.download_seconds)
        found.append(row)
    return found


def _with_transfers(pair: dict[str, Any]) -> float:
    """Lines/s with upload and download inside our time; `vllm run-batch` has its files where it runs."""
    ours = Done.read(pair["ours"])
    whole = ours.lines / (ours.seconds + ours.upload_seconds + ours.download_seconds)
    return whole / Done.read(pair["theirs"]).lines_per_second


def _median(done: Sequence[Done], of: Callable[[Done], float]) -> float:
    return round(paired.percentile([of(one) for one in done], 50), 4)


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console(width=150)
    console.print(result.told(found))
    if found.get("table"):
        console.print(_ratios(found))
        console.print(_where(found))
    if "check" in found:
        console.print(_answers(found["check"]))
    for name, why in found.get("left_out", {}).items():
        console.print(f"{name} is left out: {why}")
    for what, why in found.get("lost", {}).items():
        console.print(f"{what} is lost: {why}")


def _shown(estimate: dict[str, Any], digits: int) -> str:
    return Estimate(**estimate).text(digits) if estimate["repeats"] else "–"


def _without(one: dict[str, Any]) -> str:
    return f"{one['off']}: {one['lines_per_second']['value']:.1f}/s" if one["off"] else "–"


def _ratios(found: dict[str, Any]) -> Table:
    title = "Lines/s, ours over `vllm run-batch` (F: over ours of A); medians with their 95 % interval"
    table = Table(title=title, caption=f"{found['trace']}; flags: {'; '.join(found.get('flags', []))}")
    table.add_column("file")
    for name in ("run-batch/s", "ours/s", "ratio", "repeats", "target", "with transfers", "ours without"):
        table.add_column(name, justify="right")
    for row in found["table"]:
        table.add_row(
            f"{row['row']}. {row['words']}",
            _shown(row["theirs"]["lines_per_second"], 1),
            _shown(row["ours"]["lines_per_second"], 1),
            _shown(row["ratio"], 3),
            str(row["ratio"]["repeats"]),
            f"≥ {row['target']:g}" if row["target"] else "–",
            f"{row['ratio_with_transfers']['value']:.3f}" if row["ratio"]["repeats"] else "–",
            _without(row["ours_without"]),
        )
    return table


def _where(found: dict[str, Any]) -> Table:
    title = "Where our time went (seconds, medians), and what the engines did (theirs / ours)"
    table = Table(title=title)
    table.add_column("file")
    for name in ("validate", "to 1st segment", "generate", "assemble", "post", "up+download"):
        table.add_column(name, justify="right")
    for name in ("running", "prefix hits", "tokens in", "tokens out"):
        table.add_column(name, justify="right")
    for row in found["table"]:
        phases = [f"{row['phases'][name]:.2f}" if name in row["phases"] else "–" for name in PHASES]
        sides = [row[whose] for whose in ("theirs", "ours") if row[whose]["lines_per_second"]["repeats"]]
        table.add_row(
            row["row"],
            *phases,
            f"{row['transfer_seconds']:.2f}",
            " / ".join(f"{side['running']:.0f}" for side in sides),
            " / ".join(f"{side['prefix_hit_rate']:.1%}" for side in sides),
            " / ".join(f"{side['engine_prompt_tokens']:.0f}" for side in sides),
            " / ".join(f"{side['engine_output_tokens']:.0f}" for side in sides),
        )
    return table


def _answers(check: dict[str, Any]) -> Table:
    table = Table(title=f"Answers of {check['lines']} lines in float32, temperature 0, against `vllm run-batch`")
    for name in ("ours", "equal", "first that differ"):
        table.add_column(name)
    for arm in check["arms"]:
        equal = arm.get("why") or f"{arm['equal']} of {check['lines']}"
        table.add_row(arm["arm"], equal, ", ".join(arm.get("differ", [])))
    return table
