"""`penstock batches`: submit a file, watch and steer it, fetch its results; over the HTTP API."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer
from rich.console import Console
from rich.table import Table

from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, console, json_text, told
from penstock.cli.commands.estimate import print_estimate
from penstock.cli.input_file import first_url, upload
from penstock.cli.results import fetch, follow, followed, split, write
from penstock.cli.watch import counted, left, outlook, path, watch
from penstock.domain.work.lane import Lane
from penstock.domain.work.terms import OnInvalid
from penstock.stack.problem import Problem

app = typer.Typer(no_args_is_help=True, help="Submit JSONL files, watch them, fetch their results.")
out = console()
err = console(stderr=True)

FAILED_LINES: Final = 3
"""The exit status of a batch that completed with failed lines."""

Wait = Annotated[
    bool,
    typer.Option("--wait", help="Watch it to its end; exit with 1 unless it completes, 3 if no line was answered."),
]
FailOnErrors = Annotated[
    bool, typer.Option("--fail-on-errors", help="Exit with 3 if it completes with failed lines, however few.")
]
Model = Annotated[str | None, typer.Option(help="What lines ask that name no model.")]
Id = Annotated[str, typer.Argument(help="A batch's id, or a job's.", metavar="ID")]


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="JSONL, one request a line.")],
    endpoint: Annotated[str | None, typer.Option(help="What every line asks; else what the first line says.")] = None,
    window: Annotated[str, typer.Option(help="When it must be done: <n>m, <n>h or <n>d.")] = "24h",
    lane: Annotated[Lane, typer.Option(help="How urgent it is.")] = Lane.STANDARD,
    model: Model = None,
    on_invalid: Annotated[
        OnInvalid, typer.Option(help="A line that can't be asked fails the batch, or goes to the error file.")
    ] = OnInvalid.FAIL,
    wait: Wait = False,
    fail_on_errors: FailOnErrors = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Upload a file and make a batch of it; prints its id."""
    with told(), connected(url, data) as client:
        asks = endpoint or first_url(file, skipping=on_invalid is OnInvalid.SKIP)
        asked = {"endpoint": asks, "completion_window": window, "lane": str(lane)}
        asked |= {"on_invalid": str(on_invalid)} | ({"model": model} if model else {})
        batch = ask(client, "POST", "/batches", json=asked | {"input_file_id": upload(client, file)})
        out.print(batch["id"])
        if wait:
            _finish(watch(client, batch["id"], err), fail_on_errors)


@app.command()
def estimate(
    file: Annotated[str, typer.Argument(help="JSONL, one request a line, or the id of a file that is there.")],
    endpoint: Annotated[str | None, typer.Option(help="What every line asks; else what the first line says.")] = None,
    window: Annotated[str, typer.Option(help="When it must be done: <n>m, <n>h or <n>d.")] = "24h",
    lane: Annotated[Lane, typer.Option(help="How urgent it is.")] = Lane.STANDARD,
    model: Model = None,
    as_json: Annotated[bool, typer.Option("--json", help="The API's object, as it is.")] = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Say what a batch would take in tokens, time and money; a local file is uploaded for it, and deleted again."""
    with told(), connected(url, data) as client:
        local = None if file.startswith("file-") else Path(file)
        if local is None and endpoint is None:
            raise Problem("Say --endpoint for a file that is there already.")
        asked = {"endpoint": endpoint or first_url(local or Path()), "completion_window": window, "lane": str(lane)}
        asked |= {"model": model} if model else {}
        id = upload(client, local) if local else file
        try:
            one = ask(client, "POST", "/batches/estimate", json=asked | {"input_file_id": id})
        finally:
            if local:
                ask(client, "DELETE", f"/files/{id}")
        if as_json:
            out.print(json_text(one, indent=2), soft_wrap=True)
        else:
            print_estimate(one, out)


@app.command("list")
def list_(
    jobs: Annotated[bool, typer.Option("--jobs", help="Jobs instead of batches.")] = False,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 20,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """List batches, newest first."""
    table = Table("id", "status", "lane", "model", "answered", "failed", "left", "created", box=None, pad_edge=False)
    with told(), connected(url, data) as client:
        for one in _pages(client, "/jobs" if jobs else "/batches", limit):
            counts = one["request_counts"]
            numbers = (f"{number:,}" for number in (counts["completed"], counts["failed"], left(counts)))
            row = (one["id"], _status(one), one["lane"], one["model"] or "")
            table.add_row(*row, *numbers, _time(one["created_at"]))
        out.print(table)


def _pages(client: httpx.Client, route: str, limit: int) -> Iterator[dict[str, Any]]:
    after = None
    while limit > 0:
        params = {"limit": min(limit, 100)} | ({"after": after} if after else {})
        page = ask(client, "GET", route, params=params)
        yield from page["data"]
        if not page["has_more"]:
            return
        limit -= len(page["data"])
        after = page["last_id"]


@app.command()
def show(
    id: Id,
    as_json: Annotated[bool, typer.Option("--json", help="The API's object, as it is.")] = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Show one batch or job: its state, its counts, its errors, why it waits, and when it is expected."""
    with told(), connected(url, data) as client:
        one = ask(client, "GET", path(id))
        if as_json:
            out.print(json_text(one, indent=2), soft_wrap=True)
        else:
            _print(one)


@app.command()
def retry(
    id: Id,
    status: Annotated[list[int] | None, typer.Option(help="Lines that were refused with it; repeatable.")] = None,
    code: Annotated[list[str] | None, typer.Option(help="Lines with this error code or type; repeatable.")] = None,
    custom_id: Annotated[list[str] | None, typer.Option(help="Of all those only these lines; repeatable.")] = None,
    answered: Annotated[str | None, typer.Option(help="Also answers that are `empty`, or `truncated`.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All without an answer; so it is without a reason.")] = False,
    changes: Annotated[list[str] | None, typer.Option("--set", help="NAME=JSON in each body, max_tokens=512.")] = None,
    model: Annotated[str | None, typer.Option(help="Ask another model.")] = None,
    lane: Annotated[Lane | None, typer.Option(help="How urgent it is; else as before.")] = None,
    window: Annotated[str | None, typer.Option(help="When it must be done; else as before.")] = None,
    wait: Wait = False,
    fail_on_errors: FailOnErrors = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Ask failed lines of an ended batch or job again, changed if wanted; prints the new one's id."""
    chosen = {
        "failed": failed or None,
        "status_codes": status,
        "error_codes": code,
        "answered": answered,
        "custom_ids": custom_id,
    }
    asked = {
        "lines": {name: value for name, value in chosen.items() if value},
        "set": changes and _values(changes),
        "model": model,
        "lane": lane and str(lane),
        "completion_window": window,
    }
    with told(), connected(url, data) as client:
        one = ask(client, "POST", f"{path(id)}/retry", json={name: value for name, value in asked.items() if value})
        out.print(one["id"])
        if wait:
            _finish(watch(client, one["id"], err), fail_on_errors)


def _values(texts: list[str]) -> dict[str, Any]:
    """NAME=VALUE, where a value is JSON, or a text if it is none."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"--set is NAME=VALUE, not {text!r}.")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values


@app.command("watch")
def watch_(id: Id, fail_on_errors: FailOnErrors = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Watch a batch or job to its end, with its speed; exits with 1 unless it completes, 3 if no line was answered."""
    with told(), connected(url, data) as client:
        _finish(watch(client, id, out), fail_on_errors)


@app.command()
def cancel(id: Id, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Cancel a batch or job; what is answered is kept."""
    with told(), connected(url, data) as client:
        out.print(f"{id} {ask(client, 'POST', f'{path(id)}/cancel')['status']}")


@app.command()
def delete(id: Id, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Delete a batch or job that has ended, with its results; what it used stays counted."""
    with told(), connected(url, data) as client:
        ask(client, "DELETE", path(id))
        out.print(f"{id} deleted")


@app.command()
def pause(id: Id, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Start nothing more of a batch or job; what runs ends, and its deadline stays."""
    with told(), connected(url, data) as client:
        ask(client, "POST", f"{path(id)}/pause")
        out.print(f"{id} paused")


@app.command()
def resume(id: Id, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Let a paused batch or job go on."""
    with told(), connected(url, data) as client:
        out.print(f"{id} {ask(client, 'POST', f'{path(id)}/resume')['status']}")


@app.command("set")
def set_(
    id: Id,
    lane: Annotated[Lane | None, typer.Option(help="How urgent it is from now on.")] = None,
    window: Annotated[str | None, typer.Option(help="A new deadline, from its creation: <n>m, <n>h or <n>d.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="KEY=VALUE, as often as needed; replaces all.")] = None,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Give a batch or job that has not ended another lane, deadline or metadata."""
    with told(), connected(url, data) as client:
        asked = {"lane": lane and str(lane), "completion_window": window, "metadata": metadata and _pairs(metadata)}
        if not any(asked.values()):
            raise Problem("Say what to set: --lane, --window or --metadata.")
        _print(ask(client, "PATCH", path(id), json={name: value for name, value in asked.items() if value}))


def _pairs(texts: list[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise Problem(f"--metadata is KEY=VALUE, not {text!r}.")
    return dict(text.split("=", 1) for text in texts)


@app.command()
def results(
    id: Id,
    output: Annotated[Path | None, typer.Option(help="Where the answers go; standard output unless told.")] = None,
    errors: Annotated[Path | None, typer.Option(help="Where the failed lines go; nowhere unless told.")] = None,
    merged: Annotated[bool, typer.Option("--merged", help="Of a retry: all lines, its parent's too.")] = False,
    live: Annotated[
        bool, typer.Option("--follow", help="Of a batch: all lines, as they come, to its end; exits as watch does.")
    ] = False,
    fail_on_errors: Annotated[
        bool, typer.Option("--fail-on-errors", help="With --follow: exit with 3 if lines failed, however few.")
    ] = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Fetch the output lines, and with --errors the failed ones too."""
    with told(), connected(url, data) as client:
        if live:
            if merged or errors or id.startswith("job_"):
                raise Problem("--follow is for batches, and writes all lines, failed ones too, to one place.")
            write(follow(client, id), output)
            _finish(followed(client, id), fail_on_errors, err)
            return
        one = ask(client, "GET", path(id))
        if one["status"] not in ("completed", "cancelled", "expired", "failed"):
            raise Problem(f"{id} is {one['status']}: it has no results yet.")
        if merged:
            _fetch_merged(client, one, output, errors)
            return
        if one.get("results") is not None:
            good, bad = split(one["results"])
            write([good], output)
            if errors:
                write([bad], errors)
        else:
            fetch(client, one["output_file_id"], output)
            if errors:
                fetch(client, one["error_file_id"], errors)
        if one["request_counts"]["failed"] and not errors:
            err.print(f"{one['request_counts']['failed']:,} lines failed: fetch them with --errors FILE")


def _fetch_merged(client: httpx.Client, one: dict[str, Any], output: Path | None, errors: Path | None) -> None:
    good, bad = one["merged_output_file_id"], one["merged_error_file_id"]
    if good is None and bad is None:
        raise Problem(f"{one['id']} has no merged results: it is no retry, or it ended before it was validated.")
    fetch(client, good, output)
    if errors:
        fetch(client, bad, errors)
    elif bad:
        err.print("some lines still have no answer: fetch them with --errors FILE")


def _finish(one: dict[str, Any], fail_on_errors: bool, where: Console = out) -> None:
    counts = one["request_counts"]
    if one["status"] != "completed":
        _print(one, where)
        raise typer.Exit(1)
    if counts["failed"]:
        what = f"{counts['failed']:,} of {counts['total']:,} lines failed"
        err.print(f"{what}: penstock batches results {one['id']} --errors FILE", soft_wrap=True)
        if fail_on_errors or not counts["completed"]:
            raise typer.Exit(FAILED_LINES)


def _print(one: dict[str, Any], where: Console = out) -> None:
    counts, usage, waiting, errors = one["request_counts"], one["usage"], one["waiting"], one["errors"]
    cost = one["cost"]
    table = Table(box=None, pad_edge=False, show_header=False)
    rows = {
        "id": one["id"],
        "status": _status(one),
        "waits": waiting and " ".join([waiting["reason"].replace("_", " "), *waiting["models"]]),
        "lane": one["lane"],
        "model": one["model"],
        "endpoint": one["endpoint"],
        "lines": f"{counts['total']:,}: {counted(counts)}",
        "tokens": f"{usage['input_tokens']:,} in, {usage['output_tokens']:,} out",
        "cost": cost and f"{cost['tokens']} {cost['currency']} by tokens, {cost['gpu']} by {cost['gpu_seconds']} GPU s",
        "created": _time(one["created_at"]),
        "expires": _time(one["expires_at"]),
        "expected": _expected(one["expected"]),
        "input file": one["input_file_id"],
        "output file": one["output_file_id"],
        "error file": one["error_file_id"],
        "repeats": one["parent_batch_id"],
        "retries": ", ".join(one["children"] or ()) or None,
        "merged output": one["merged_output_file_id"],
        "merged errors": one["merged_error_file_id"],
    }
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, str(value))
    where.print(table)
    for warning in one["warnings"] or ():
        lines = ", ".join(map(str, warning["lines"])) + (" …" if warning["count"] > len(warning["lines"]) else "")
        where.print(f"  {warning['message']} (lines {lines})")
    for error in (errors or {}).get("data", [])[:20]:
        place = f"line {error['line']}: " if error["line"] is not None else ""
        where.print(f"  {place}{error['message']} ({error['code']})")
    if errors and errors["total"] > 20:
        where.print(f"  … {errors['total']:,} errors in all; the first {len(errors['data']):,} are in --json")


def _status(one: dict[str, Any]) -> str:
    return "paused" if one["paused"] else one["status"]


def _expected(expected: dict[str, Any] | None) -> str | None:
    if expected is None:
        return None
    if expected["completion_at"] is None:
        return f"not known: {expected['reason'].replace('_', ' ')}"
    return f"{_time(expected['completion_at'])}, {outlook(expected, time.time())}"


def _time(unix: int) -> str:
    return datetime.fromtimestamp(unix).astimezone().isoformat(" ", "seconds")
