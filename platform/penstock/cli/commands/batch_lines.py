"""`lines` and `errors` of batches and jobs: what became of each line, and how many failed in which way."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, told
from penstock.cli.commands.one_batch import Id
from penstock.cli.printing import Json, console, remark, say_json, show, table
from penstock.cli.watch import path
from penstock.domain.work.line_query import LineState

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

_PAGE = 1_000


def lines(
    id: Id,
    failed: Annotated[bool, typer.Option("--failed", help="Only failed lines; short for --state failed.")] = False,
    state: Annotated[LineState | None, typer.Option(help="Only lines that are so by now.")] = None,
    code: Annotated[str | None, typer.Option(help="Only lines that failed with this code.")] = None,
    status: Annotated[int | None, typer.Option(help="Only lines that the engine refused with it.")] = None,
    custom_id: Annotated[str | None, typer.Option(help="Only the line with exactly this custom_id.")] = None,
    after: Annotated[int, typer.Option(help="Only lines behind the one with this number.", min=0)] = 0,
    limit: Annotated[int, typer.Option(help="So many at most.", min=1)] = 100,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """List lines in the order of the input, with what became of each; while it runs, too."""
    wanted = "failed" if failed else state and str(state)
    asked = {"state": wanted, "code": code, "status_code": status, "custom_id": custom_id}
    with told(), connected(url, data) as client:
        given = {name: value for name, value in asked.items() if value is not None}
        found = list(islice(_pages(client, id, given, after, limit), limit + 1))
        shown = found[:limit]
        if as_json:
            say_json({"object": "list", "data": shown, "has_more": len(found) > limit})
            return
        heads = ("line", "custom_id", "state", "status", "code", "tokens", "said")
        show(table(heads, map(_row, shown)), console())
        if len(found) > limit:
            remark(f"there are more: --after {shown[-1]['line']}")


def _pages(client: httpx.Client, id: str, asked: dict[str, Any], after: int, limit: int) -> Iterator[dict[str, Any]]:
    cursor: str | None = str(after)
    while cursor is not None:
        page = ask(
            client, "GET", f"{path(id)}/lines", params={**asked, "after": cursor, "limit": min(limit + 1, _PAGE)}
        )
        yield from page["data"]
        cursor = page["next_after"]


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    tokens = one["usage"]["input_tokens"] + one["usage"]["output_tokens"]
    status = one["status_code"]
    return (
        str(one["line"]),
        one["custom_id"] or "",
        one["state"],
        "" if status is None else str(status),
        one["code"] or "",
        f"{tokens:,}" if tokens else "",
        one["message"] or one["finish_reason"] or "",
    )


def errors(id: Id, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Count failed lines by status and code, with one message of each; while it runs, too."""
    with told(), connected(url, data) as client:
        found = ask(client, "GET", f"{path(id)}/errors")
        if as_json:
            say_json(found)
            return
        show(table(("lines", "group", "first line", "message"), map(_group, found["data"])), console())
        if found["counted"] < found["failed"]:
            remark(f"{found['failed'] - found['counted']:,} more failed before this release counted them")


def _group(one: dict[str, Any]) -> tuple[str, ...]:
    return f"{one['count']:,}", one["id"], str(one["first_line"]), one["message"]
