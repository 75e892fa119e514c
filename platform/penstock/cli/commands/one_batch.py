"""What is done with one batch or job by its id: the same commands in both families."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from penstock.cli.batch_page import show_one
from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, told
from penstock.cli.exit_status import FAILED_LINES
from penstock.cli.patient_client import PatientClient
from penstock.cli.printing import Json, console, remark, say, say_json
from penstock.cli.watch import path, watch
from penstock.domain.work.lane import Lane
from penstock.stack.problem import Problem

Wait = Annotated[
    bool,
    typer.Option("--wait", help="Watch it to its end; exit with 1 unless it completes, 3 if no line was answered."),
]
FailOnErrors = Annotated[
    bool, typer.Option("--fail-on-errors", help="Exit with 3 if it completes with failed lines, however few.")
]
Model = Annotated[str | None, typer.Option(help="What lines ask that name no model.")]
Window = Annotated[str, typer.Option(help="When it must be done: <n>m, <n>h or <n>d.")]
Id = Annotated[str, typer.Argument(help="A batch's id, or a job's.", metavar="ID")]


def made(patient: PatientClient, one: dict[str, Any], wait: bool, fail_on_errors: bool, as_json: bool) -> None:
    """Say what was made; with `wait`, follow it to its end, and exit as that was."""
    if not as_json:
        say(one["id"])
    if wait:
        one = watch(patient, one["id"], console(stderr=True, live=True))
    if as_json:
        say_json(one)
    if wait:
        exit_as(one, fail_on_errors, on_stderr=as_json)


def exit_as(one: dict[str, Any], fail_on_errors: bool, *, on_stderr: bool) -> None:
    """Exit as a batch or job ended, and say why if that is no success."""
    counts = one["request_counts"]
    if one["status"] != "completed":
        show_one(one, console(on_stderr))
        raise typer.Exit(1)
    if counts["failed"]:
        what = f"{counts['failed']:,} of {counts['total']:,} lines failed"
        remark(f"{what}: penstock batches results {one['id']} --errors FILE")
        if fail_on_errors or not counts["completed"]:
            raise typer.Exit(FAILED_LINES)


def show(id: Id, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Show one batch or job: its state, its counts, its errors, why it waits, and when it is expected."""
    with told(), connected(url, data) as client:
        one = ask(client, "GET", path(id))
        if as_json:
            say_json(one)
        else:
            show_one(one, console())


def retry(
    id: Id,
    status: Annotated[list[int] | None, typer.Option(help="Lines that were refused with it; repeatable.")] = None,
    code: Annotated[list[str] | None, typer.Option(help="Lines with this error code or type; repeatable.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="Lines of this group, STATUS:CODE as `errors` has it; repeatable.")
    ] = None,
    custom_id: Annotated[list[str] | None, typer.Option(help="Of all those only these lines; repeatable.")] = None,
    answered: Annotated[str | None, typer.Option(help="Also answers that are `empty`, or `truncated`.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All without an answer; so it is without a reason.")] = False,
    changes: Annotated[list[str] | None, typer.Option("--set", help="NAME=JSON in each body, max_tokens=512.")] = None,
    model: Annotated[str | None, typer.Option(help="Ask another model.")] = None,
    lane: Annotated[Lane | None, typer.Option(help="How urgent it is; else as before.")] = None,
    window: Annotated[str | None, typer.Option(help="When it must be done; else as before.")] = None,
    wait: Wait = False,
    fail_on_errors: FailOnErrors = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Ask failed lines of an ended batch or job again, changed if wanted; prints the new one's id."""
    chosen = {
        "failed": failed or None,
        "status_codes": status,
        "error_codes": code,
        "groups": group,
        "answered": answered,
        "custom_ids": custom_id,
    }
    asked = {
        "lines": {name: value for name, value in chosen.items() if value},
        "set": changes and values(changes),
        "model": model,
        "lane": lane and str(lane),
        "completion_window": window,
    }
    with told(), connected(url, data) as client:
        one = ask(client, "POST", f"{path(id)}/retry", json={name: value for name, value in asked.items() if value})
        made(PatientClient(client, known=True), one, wait, fail_on_errors, as_json)


def values(texts: list[str]) -> dict[str, Any]:
    """NAME=VALUE, where a value is JSON, or a text if it is none. Raises typer.BadParameter."""
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"--set is NAME=VALUE, not {text!r}.")
        try:
            values[name] = json.loads(value)
        except (ValueError, RecursionError):
            values[name] = value
    return values


def watch_(
    id: Id,
    fail_on_errors: FailOnErrors = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Watch a batch or job to its end, with its speed; exits with 1 unless it completes, 3 if no line was answered."""
    with told(), connected(url, data) as client:
        one = watch(PatientClient(client), id, console(stderr=as_json, live=True))
        if as_json:
            say_json(one)
        exit_as(one, fail_on_errors, on_stderr=as_json)


def cancel(id: Id, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Cancel a batch or job; what is answered is kept."""
    with told(), connected(url, data) as client:
        one = ask(client, "POST", f"{path(id)}/cancel")
        say_json(one) if as_json else say(f"{id} {one['status']}")


def delete(id: Id, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Delete a batch or job that has ended, with its results; what it used stays counted."""
    with told(), connected(url, data) as client:
        gone = ask(client, "DELETE", path(id))
        say_json(gone) if as_json else say(f"{id} deleted")


def pause(id: Id, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Start nothing more of a batch or job; what runs ends, and its deadline stays."""
    with told(), connected(url, data) as client:
        one = ask(client, "POST", f"{path(id)}/pause")
        say_json(one) if as_json else say(f"{id} paused")


def resume(id: Id, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Let a paused batch or job go on."""
    with told(), connected(url, data) as client:
        one = ask(client, "POST", f"{path(id)}/resume")
        say_json(one) if as_json else say(f"{id} {one['status']}")


def set_(
    id: Id,
    lane: Annotated[Lane | None, typer.Option(help="How urgent it is from now on.")] = None,
    window: Annotated[str | None, typer.Option(help="A new deadline, from its creation: <n>m, <n>h or <n>d.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="KEY=VALUE, as often as needed; replaces all.")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Give a batch or job that has not ended another lane, deadline or metadata."""
    with told(), connected(url, data) as client:
        asked = {"lane": lane and str(lane), "completion_window": window, "metadata": metadata and _pairs(metadata)}
        if not any(asked.values()):
            raise Problem("Say what to set: --lane, --window or --metadata.")
        one = ask(client, "PATCH", path(id), json={name: value for name, value in asked.items() if value})
        if as_json:
            say_json(one)
        else:
            show_one(one, console())


def _pairs(texts: list[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise Problem(f"--metadata is KEY=VALUE, not {text!r}.")
    return dict(text.split("=", 1) for text in texts)


def join(app: typer.Typer) -> None:
    """Make these commands of a family."""
    for command in (show, watch_, cancel, delete, pause, resume, set_, retry):
        app.command(command.__name__.rstrip("_"))(command)
