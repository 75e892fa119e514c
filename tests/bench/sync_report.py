"""The report of `make bench-sync`."""

from __future__ import annotations

from typing import Any

from bench import result, sync_packs
from bench.paired import Estimate
from rich.console import Console
from rich.table import Table

_NAMES = {"ttft_ms": "TTFT", "total_ms": "whole answer"}


def show(found: dict[str, Any]) -> None:
    """Print the tables of the parts that were measured."""
    console = Console(width=150)
    console.print(result.told(found))
    if "latency" in found:
        console.print(_latency(found["latency"]))
    if "rate" in found:
        console.print(_rate(found["rate"]))
    if "packs" in found:
        console.print(_packs(found["packs"]))
    if "idle_streams" in found:
        console.print(_idle(found["idle_streams"]))


def _latency(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="The path of a waiting call, real vLLM, ms (added: median of paired differences, 95 %)")
    table.add_column("callers", justify="right")
    table.add_column("what")
    for name in ("direct p50", "p99", "path p50", "p99", "added"):
        table.add_column(name, justify="right")
    for row in rows:
        for what, words in _NAMES.items():
            one = row[what]
            shown = [f"{one[road][percent]:.1f}" for road in ("direct", "path") for percent in ("p50", "p99")]
            added = Estimate(**one["added"])
            table.add_row(str(row["callers"]), words, *shown, added.text(2) + f" of {added.repeats}")
    return table


def _rate(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Requests/s of one API process, echo engine (simulated); processor time of a request, ms")
    table.add_column("answers")
    for name in ("callers", "direct/s", "path/s", "api", "worker", "engine", "caller"):
        table.add_column(name, justify="right")
    for row in rows:
        spent = row["cpu_ms_per_request"]
        table.add_row(
            row["answers"],
            str(row["callers"]),
            Estimate(**row["direct_per_second"]).text(0),
            Estimate(**row["path_per_second"]).text(0),
            *(f"{spent.get(name, 0.0):.2f}" for name in ("api", "worker", "engine", "caller")),
        )
    return table


def _packs(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Embeddings of short texts, real vLLM: texts/s and p50/p95 in ms; ratios of texts/s, 95 %")
    table.add_column("callers", justify="right")
    for name in ("direct", "ms", "path, each alone", "ms", "path", "ms", "to direct", "to each alone"):
        table.add_column(name, justify="right")
    for row in rows:
        shown = []
        for arm in sync_packs.ARMS:
            one = row[arm]
            shown += [Estimate(**one["per_second"]).text(0), f"{one['p50_ms']:.1f}/{one['p95_ms']:.1f}"]
        ratios = [Estimate(**row[f"path_to_{other}"]).text(2) for other in sync_packs.ARMS[:2]]
        table.add_row(str(row["callers"]), *shown, *ratios)
    return table


def _idle(found: dict[str, Any]) -> Table:
    table = Table(title="Idle streaming clients of one API process, echo engine (simulated)", show_header=False)
    for name, value in found.items():
        table.add_row(name.replace("_", " "), str(value))
    return table
