"""Estimates as a person reads them: lines, tokens, time and cost, from, expected, to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.cli.printing import show, table
from penstock.domain.work.batch_words import duration

if TYPE_CHECKING:
    from rich.console import Console


def print_estimate(one: dict[str, Any], out: Console) -> None:
    """Print the API's estimate as a table, and what it is based on."""
    lines, based, seconds, cost = one["lines"], one["based_on"], one["seconds"], one["cost"]
    rows = [("lines", *(f"{lines[name]:,}" for name in ("low", "count", "high")))]
    for name in ("input_tokens", "output_tokens"):
        rows.append((name.replace("_", " "), *(f"{value:,.0f}" for value in one[name].values())))
    if seconds:
        rows.append(("time", *map(duration, seconds.values())))
    if cost:
        for name in ("tokens", "gpu"):
            if cost[name]:
                rows.append((f"{cost['currency']} by {name}", *(f"{float(one):.6f}" for one in cost[name].values())))
    show(table(("", "low", "expected", "high"), rows), out)
    if not seconds:
        out.print(f"time is not known: {one['reason'].replace('_', ' ')}")
    if one["meets_deadline"] is False:
        out.print("it is expected after its deadline")
    if based["bad_lines"]:
        bad = f"of {based['sampled_lines']} lines that were looked at {based['bad_lines']} are bad"
        out.print(f"{bad}: {based['first_error']['message']}")
    out.print(f"input by {based['input']}, output by {based['output']}, from {based['sampled_lines']} lines")
