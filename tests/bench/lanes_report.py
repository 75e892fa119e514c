"""The report of `make bench-lanes`: the whole curve, arm by arm, and what came out beside each target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from bench import arms, paired, result
from bench.arms import Window
from bench.paired import Estimate
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from bench.lanes_run import Bench


LONG: Final = ", long"
"""Ends the names of arms whose batch lines have long answers."""


def line(window: Window) -> str:
    """One window in a line, as it comes."""
    first, gap = arms.ttfts(window.calls), arms.gaps(window.calls)
    refused = sum(not call.ok for call in [*window.calls, *window.burst])
    return (
        f"{window.arm} (round {window.round}): TTFT {paired.percentile(first, 50):.0f} / "
        f"{paired.percentile(first, 95):.0f} ms, ITL p95 {paired.percentile(gap, 95):.0f} ms, "
        f"{window.lines_per_second:.1f} lines/s"
        + (f", {refused} refused" if refused else "")
        + "".join(f", {name} {value}" for name, value in window.notes.items())
    )


def curve(windows: Sequence[Window]) -> list[dict[str, Any]]:
    """Every arm over its rounds: calls pooled, throughput as the median of its windows."""
    found = []
    for arm in dict.fromkeys(window.arm for window in sorted(windows, key=_place)):
        own = [window for window in windows if window.arm == arm]
        calls = [call for window in own for call in window.calls]
        first, burst = arms.ttfts(calls), arms.ttfts([call for window in own for call in window.burst])
        found.append(
            {
                "arm": arm,
                "rounds": len(own),
                "calls": len(calls),
                "ttft_p50_ms": paired.median(first).json(),
                "ttft_p95_ms": paired.percentile(first, 95),
                "ttft_max_ms": max(first, default=float("nan")),
                "itl_p95_ms": paired.percentile(arms.gaps(calls), 95),
                "lines_per_second": paired.median([window.lines_per_second for window in own]).json(),
                "tokens_per_second": paired.median([window.tokens_per_second for window in own]).json(),
                "burst_ttft_p50_ms": paired.percentile(burst, 50),
                "burst_ttft_max_ms": max(burst, default=float("nan")),
                "refused": sum(not call.ok for window in own for call in [*window.calls, *window.burst]),
                "ran_dry": sum(bool(window.notes.get("ran_dry")) for window in own),
            }
        )
    return found


def _place(window: Window) -> tuple[int, int]:
    kinds = ("none", "bare", "naive", "ours", "fixed")
    kind, _, rest = window.arm.replace(",", "").partition(" ")
    first = rest.split(" ")[0]
    return kinds.index(kind), int(first) if first.isdigit() else 0


def targets(bench: Bench) -> list[dict[str, Any]]:
    """What the issue asks for, beside what was found; parts that were not measured are left out."""
    found = []
    ours = bench.of("ours")
    for kind in ("", LONG):
        bare = f"bare {bench.given.bare_seqs}{kind}"
        if pairs := [(_p50(b), _p50(o)) for b, o in bench.both(bare, f"ours{kind}")]:
            found.append(_target(f"(c) TTFT p50 over that of {bare}", paired.ratios(pairs), "≤ 0.125"))
    naive = {window.arm for window in bench.windows if window.arm.startswith(("naive", "bare"))}
    naive = {arm for arm in naive if not arm.endswith(LONG)}
    if ours and naive:
        for unit in ("lines_per_second", "tokens_per_second"):
            best = max(naive, key=lambda arm: paired.median([getattr(w, unit) for w in bench.of(arm)]).value)
            both = [(getattr(b, unit), getattr(o, unit)) for b, o in bench.both(best, "ours")]
            words = unit.replace("_per_second", "/s")
            found.append(_target(f"(c) batch {words} over the best of (b), {best}", paired.ratios(both), "≥ 0.97"))
    if bench.given.against:
        found += _beside(bench.both(bench.given.against_arm, "ours"), bench.of("none"))
    for one in bench.objectives:
        held = one["ours_p95_over_target"]
        what = f"(d) {one['kind']} p95 over its target, {one['target_ms']} ms"
        found.append({"what": what, "found": f"{held:.2f}", "target": "≤ 1"})
        if one["best_fixed"]:
            fixed = f"{one['best_fixed']} (p95 {one['fixed_p95_ms']:.0f} ms this time)"
            what = f"(d) batch lines/s over the best fixed budget that held it, {fixed}"
            found.append(_target(what, Estimate(**one["lines_ratio"]), "≥ 0.95"))
    if bench.jobs:
        for lane, target in (("standard", "≤ 3"), ("priority", "≤ 1.5")):
            ratio = Estimate(**bench.jobs["ratio_to_alone"][lane])
            found.append(_target(f"small {lane} job over its time alone", ratio, target))
    return found


def _beside(both: Sequence[tuple[Window, Window]], alone: Sequence[Window]) -> list[dict[str, Any]]:
    """(f): ours over the other platform, and both beside calls alone."""
    if not both:
        return []
    idle = paired.percentile(arms.ttfts([call for window in alone for call in window.calls]), 50)
    name = both[0][0].arm
    found = [
        _target(f"(f) TTFT p50 over that of {name}", paired.ratios([(_p50(o), _p50(w)) for o, w in both]), "≤ 1.1"),
        _target(
            f"(f) batch lines/s over those of {name}",
            paired.ratios([(o.lines_per_second, w.lines_per_second) for o, w in both]),
            "≥ 0.95",
        ),
    ]
    for arm, own in ((name, [o for o, _ in both]), ("ours", [w for _, w in both])):
        first = arms.ttfts([call for window in own for call in window.calls])
        parts = (f"{paired.percentile(first, 95) / idle:.1f}", f"{max(first) / idle:.1f}")
        what = f"(f) {arm}: TTFT p95 and max over the p50 of calls alone ({len(first)} calls)"
        found.append({"what": what, "found": " and ".join(parts), "target": "≤ 5.5 and ≤ 8"})
    return found


def _p50(window: Window) -> float:
    return paired.percentile(arms.ttfts(window.calls), 50)


def _target(what: str, found: Estimate, target: str) -> dict[str, Any]:
    return {"what": what, "found": found.text(2), "estimate": found.json(), "target": target}


def show(found: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console(width=150)
    console.print(result.told(found))
    table = Table(title="Waiting calls beside a batch; medians with their 95 % interval", caption=found["trace"])
    table.add_column("arm")
    latencies, rates = ("TTFT p50, ms", "p95", "max", "ITL p95, ms"), ("batch lines/s", "tokens/s")
    for name in (*latencies, *rates, "burst p50", "max", "refused"):
        table.add_column(name, justify="right")
    for row in found["curve"]:
        table.add_row(
            row["arm"] + (" (ran dry!)" if row["ran_dry"] else ""),
            Estimate(**row["ttft_p50_ms"]).text(0),
            f"{row['ttft_p95_ms']:.0f}",
            _ms(row["ttft_max_ms"]),
            f"{row['itl_p95_ms']:.1f}",
            Estimate(**row["lines_per_second"]).text(1),
            f"{row['tokens_per_second']['value']:.0f}",
            _ms(row["burst_ttft_p50_ms"]),
            _ms(row["burst_ttft_max_ms"]),
            str(row["refused"]),
        )
    console.print(table)
    for lost in found["lost"]:
        console.print(f"{lost['arm']} (round {lost['round']}) is lost: {lost['why']}")
    _show_jobs(console, found["small_job"])
    table = Table(title="Targets")
    for name in ("what", "found", "target"):
        table.add_column(name)
    for row in found["targets"]:
        table.add_row(row["what"], row["found"], row["target"])
    console.print(table)


def _ms(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0f}"


def _show_jobs(console: Console, jobs: dict[str, Any] | None) -> None:
    if not jobs:
        return
    table = Table(title=f"{jobs['lines']} lines behind {jobs['behind']} of another tenant")
    table.add_column("situation")
    table.add_column("seconds, each", justify="right")
    table.add_column("median", justify="right")
    for situation, seconds in jobs["seconds"].items():
        each = " ".join(f"{value:.2f}" for value in seconds)
        table.add_row(situation, each, paired.median(seconds).text(2))
    console.print(table)
