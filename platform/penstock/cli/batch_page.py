"""Batches and jobs as a person reads them: one in full, many as rows."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from penstock.cli.printing import show, table
from penstock.cli.watch import lines, outlook
from penstock.domain.work.batch_words import left
from penstock.domain.work.batch_words import many as tokens_told

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_MOST_ERRORS: Final = 20


def many(batches: Iterable[dict[str, Any]]) -> Table:
    """A row each."""
    heads = ("id", "status", "lane", "model", "answered", "failed", "left", "created")
    return table(heads, map(_row, batches))


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    counts = one["request_counts"]
    numbers = (f"{number:,}" for number in (counts["completed"], counts["failed"], left(**counts)))
    return one["id"], _status(one), one["lane"], one["model"] or "", *numbers, local_time(one["created_at"])


def show_one(one: dict[str, Any], where: Console) -> None:
    """Its state, its counts, its files, what it warns of, and its errors."""
    rows = ((name, str(value)) for name, value in _facts(one).items() if value is not None)
    show(table((), rows), where)
    for warning in one["warnings"] or ():
        lines = ", ".join(map(str, warning["lines"])) + (" …" if warning["count"] > len(warning["lines"]) else "")
        where.print(f"  {warning['message']} (lines {lines})")
    errors = one["errors"] or {"data": [], "total": 0}
    for error in errors["data"][:_MOST_ERRORS]:
        where.print(f"  {fault(error)}")
    if errors["total"] > _MOST_ERRORS:
        where.print(f"  … {errors['total']:,} errors in all; the first {len(errors['data']):,} are in --json")


def fault(error: dict[str, Any]) -> str:
    """`line 3: … (invalid_json_line)`: what validation says of a line, or of the whole file."""
    place = f"line {error['line']}: " if error["line"] is not None else ""
    return f"{place}{error['message']} ({error['code']})"


def _facts(one: dict[str, Any]) -> dict[str, Any]:
    counts, usage, waiting, cost = one["request_counts"], one["usage"], one["waiting"], one["cost"]
    return {
        "id": one["id"],
        "status": _status(one),
        "waits": waiting and waiting["message"],
        "lane": one["lane"],
        "model": one["model"],
        "versions": ", ".join(f"{asked} {' '.join(found)}" for asked, found in (one.get("versions") or {}).items()),
        "endpoint": one["endpoint"],
        "lines": f"{counts['total']:,}: {lines(one)}",
        "tokens": f"{usage['input_tokens']:,} in, {usage['output_tokens']:,} out",
        "cost": cost and f"{cost['tokens']} {cost['currency']} by tokens, {cost['gpu']} by {cost['gpu_seconds']} GPU s",
        "saved": _saved(one["saved"]),
        "created": local_time(one["created_at"]),
        "expires": local_time(one["expires_at"]),
        "expected": _expected(one["expected"]),
        "before it": _before(one["expected"]),
        "input file": one["input_file_id"],
        "output file": one["output_file_id"],
        "error file": one["error_file_id"],
        "repeats": one["parent_batch_id"],
        "retries": ", ".join(one["children"] or ()) or None,
        "merged output": one["merged_output_file_id"],
        "merged errors": one["merged_error_file_id"],
        "trace": one["trace_file_id"],
    }


def _saved(saved: dict[str, Any] | None) -> str | None:
    """What spared how many tokens, and what these would have cost more; None if nothing did, or nobody knows."""
    told = []
    for name in ("prefix_cache", "equal_lines", "shared_cache") if saved else ():
        part = saved[name] if saved else {}
        if tokens := part["input_tokens"] + part["output_tokens"]:
            money = f" ({part['amount']})" if part["amount"] is not None else ""
            told.append(f"{tokens:,} tokens{money} by {name.replace('_', ' ')}")
    if not told or saved is None:
        return None
    whole = "" if saved["amount"] is None else f"{saved['amount']} {saved['currency']}: "
    return whole + ", ".join(told)


def _status(one: dict[str, Any]) -> str:
    return "paused" if one["paused"] else str(one["status"])


def _expected(expected: dict[str, Any] | None) -> str | None:
    if expected is None:
        return None
    if expected["completion_at"] is None:
        return f"not known: {expected['reason'].replace('_', ' ')}"
    return f"{local_time(expected['completion_at'])}, {outlook(expected, time.time())}"


def _before(expected: dict[str, Any] | None) -> str | None:
    """What stands before the end, of its slowest model."""
    if not expected or not expected["parts"]:
        return None
    [part, *_] = expected["parts"]
    before = (
        (part["tokens"], "of its own"),
        (part["above_tokens"], "in more urgent lanes"),
        (part["sooner_tokens"], "of yours that go first"),
        (part["rival_tokens"], "of other tenants"),
    )
    told = ", ".join(f"{tokens_told(tokens)} {what}" for tokens, what in before if tokens)
    return f"{told} (tokens, at {part['tokens_per_second']:,.0f} a second)"


def local_time(unix: int | None) -> str:
    """A time of the API in this machine's zone; nothing for none."""
    return "" if unix is None else datetime.fromtimestamp(unix).astimezone().isoformat(" ", "seconds")
