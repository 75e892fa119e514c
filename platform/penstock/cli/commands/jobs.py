"""`penstock jobs`: one request or a few, without a file of a batch; over the HTTP API."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from penstock.cli.batch_page import many
from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, told
from penstock.cli.commands import one_batch
from penstock.cli.commands.one_batch import FailOnErrors, Wait, Window, made, values
from penstock.cli.commands.results import results
from penstock.cli.kept_shown import Watch, once_or_kept
from penstock.cli.patient_client import PatientClient, newest
from penstock.cli.printing import Json
from penstock.domain.work.lane import Lane
from penstock.stack.problem import Problem

app = typer.Typer(no_args_is_help=True, help="Submit one request or a few, watch them, fetch their answers.")

_CHAT: Final = "/v1/chat/completions"


@app.command()
def submit(
    file: Annotated[
        Path | None,
        typer.Argument(help="JSON Lines, each a request's body, or a line as batches have them; - is standard input."),
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="A chat request that says this; repeatable.")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="NAME=JSON in each body, max_tokens=512.")] = None,
    model: Annotated[str | None, typer.Option(help="What requests ask that name no model.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="What every request asks; else what the lines say.")] = None,
    window: Window = "24h",
    lane: Annotated[Lane, typer.Option(help="How urgent it is.")] = Lane.STANDARD,
    wait: Wait = False,
    fail_on_errors: FailOnErrors = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Make a job of requests that come along, and need no file; prints its id."""
    more = values(changes or [])
    with told(), connected(url, data) as client:
        lines = _lines(file) if file else []
        lines += [{"body": {"messages": [{"role": "user", "content": text}]}} for text in prompt or ()]
        if not lines:
            raise Problem("Say what to ask: a FILE with requests, - for standard input, or --prompt TEXT.")
        asked = {
            "endpoint": endpoint or next((line["url"] for line in lines if "url" in line), _CHAT),
            "requests": [_request(line, more) for line in lines],
            "completion_window": window,
            "lane": str(lane),
        }
        one = ask(client, "POST", "/jobs", json=asked | ({"model": model} if model else {}))
        made(PatientClient(client, known=True), one, wait, fail_on_errors, as_json)


def _request(line: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    named = {"custom_id": line["custom_id"]} if "custom_id" in line else {}
    return named | {"body": line["body"] | more}


def _lines(file: Path) -> list[dict[str, Any]]:
    """What each line asks, as a batch's line; raises Problem."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8-sig")
    except OSError as error:
        raise Problem(f"{file} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise Problem(f"{file} is not UTF-8.") from None
    whole = _json(text)
    if isinstance(whole, dict):
        return [_as_line(whole, f"{file}")]
    numbered = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
    return [_as_line(_json(line), f"Line {number} of {file}") for number, line in numbered]


def _as_line(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Problem(f"{where} is no JSON object.")
    if "body" not in value:
        return {"body": value}
    if not isinstance(value["body"], dict):
        raise Problem(f"{where}: its body is no JSON object.")
    return value


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 20,
    keep: Watch = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """List jobs, newest first."""
    with told(), connected(url, data) as client:
        patient = PatientClient(client)
        once_or_kept(lambda: newest(patient, "/jobs", limit), lambda page: many(page["data"]), keep, as_json)


one_batch.join(app)
app.command()(results)
