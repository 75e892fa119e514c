"""Runs and comparisons as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from penstock.cli.printing import show, table
from penstock.domain.work.batch_words import duration

if TYPE_CHECKING:
    from rich.console import Console

ENDED: Final = ("completed", "failed", "cancelled")
_VERDICTS: Final = {"better": "better", "worse": "worse", "no_difference_shown": "no difference shown"}


def subject(run: dict[str, Any]) -> str:
    """Whose answers a run scores."""
    return str(run["model"] or run["batch_id"])


def progress(run: dict[str, Any]) -> str:
    """How far a run is, in a word or two."""
    batch = run["batch"]
    if run["status"] == "running" and batch and batch["lines"]:
        return f"running {batch['done']:,}/{batch['lines']:,}"
    if run["status"] == "scoring" and run["scored"]:
        return f"scoring {run['scored']:,}"
    return str(run["status"])


def print_runs(runs: Sequence[dict[str, Any]], out: Console) -> None:
    """Runs as a table: a column for each scorer, and what the answers took."""
    names = list(dict.fromkeys(score["name"] for run in runs for score in run["scores"] or ()))
    heads = ("run", "of", "status", "lines", *names, "output tokens", "cost", "time")
    show(table(heads, [_row(run, names) for run in runs]), out)
    for run in runs:
        if run["error"]:
            out.print(f"{run['id']} failed: {run['error']['message']}")


def _row(run: dict[str, Any], names: Sequence[str]) -> tuple[str, ...]:
    scores = {score["name"]: score for score in run["scores"] or ()}
    counts, batch = run["result_counts"], run["batch"]
    took = ("", "", "") if batch is None else (f"{batch['output_tokens']:,}", _cost(batch), _time(batch))
    lines = "" if counts is None else f"{counts['total']:,}"
    return run["id"], subject(run), progress(run), lines, *(_mean(scores.get(name)) for name in names), *took


def _mean(score: dict[str, Any] | None) -> str:
    if score is None or score["mean"] is None:
        return ""
    return f"{score['mean']:.3f} ({score['low']:.3f} to {score['high']:.3f})"


def _cost(batch: dict[str, Any]) -> str:
    return "" if batch["cost"] is None else f"{float(batch['cost']):.6f} {batch['currency']}"


def _time(batch: dict[str, Any]) -> str:
    return "" if batch["seconds"] is None else duration(batch["seconds"])


def print_run(run: dict[str, Any], out: Console) -> None:
    """One run: its scores with what passed, failed and could not be scored."""
    print_runs([run], out)
    if run["scores"]:
        heads = ("scorer", "type", "mean", "95 %", "passed", "failed", "not scored")
        show(table(heads, map(_score_row, run["scores"])), out)
    if run["result_file_id"]:
        out.print(f"line by line: penstock files download {run['result_file_id']}")


def _score_row(score: dict[str, Any]) -> tuple[str, ...]:
    mean = "" if score["mean"] is None else f"{score['mean']:.3f}"
    interval = "" if score["mean"] is None else f"{score['low']:.3f} to {score['high']:.3f}"
    counts = (f"{score[name]:,}" for name in ("passed", "failed", "errors"))
    return score["name"], score["type"], mean, interval, *counts


def print_comparison(one: dict[str, Any], out: Console) -> None:
    """One comparison: each scorer's difference with its interval, and what both runs took."""
    if one["error"]:
        out.print(f"{one['id']} failed: {one['error']['message']}")
        return
    if one["scores"] is None:
        out.print(f"{one['id']} {one['status']}")
        return
    heads = ("scorer", "baseline", "candidate", "difference", "95 %", "better", "worse", "same", "the candidate is")
    show(table(heads, map(_compared, one["scores"])), out)
    took = [_took(name, one[name]) for name in ("baseline", "candidate") if one[name]]
    show(table(("", "input tokens", "output tokens", "GPU-seconds", "cost", "time"), took), out)
    lines = one["lines"]
    alone = lines["only_baseline"] + lines["only_candidate"]
    out.print(f"{lines['paired']:,} lines paired" + (f", {alone:,} are in one run only" if alone else ""))


def _compared(score: dict[str, Any]) -> tuple[str, ...]:
    counts = tuple(f"{score[name]:,}" for name in ("better", "worse", "same"))
    if score["difference"] is None:
        return score["name"], "", "", "", "", *counts, "not known: no line has both scores"
    means = (f"{score[name]:.3f}" for name in ("baseline_mean", "candidate_mean"))
    interval = f"{score['low']:+.3f} to {score['high']:+.3f}"
    return score["name"], *means, f"{score['difference']:+.3f}", interval, *counts, _VERDICTS[score["verdict"]]


def _took(name: str, batch: dict[str, Any]) -> tuple[str, ...]:
    tokens = (f"{batch[kind]:,}" for kind in ("input_tokens", "output_tokens"))
    return name, *tokens, f"{batch['gpu_seconds']:,.1f}", _cost(batch), _time(batch)
