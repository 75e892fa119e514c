"""`penstock batches`: submit a file, watch and steer it, fetch its results; over the HTTP API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.batch_page import many
from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, told
from penstock.cli.commands import one_batch
from penstock.cli.commands.batch_lines import errors, lines
from penstock.cli.commands.estimate import print_estimate
from penstock.cli.commands.one_batch import FailOnErrors, Model, Wait, Window, made
from penstock.cli.commands.results import results
from penstock.cli.input_file import first_url, upload
from penstock.cli.kept_shown import Watch, once_or_kept
from penstock.cli.patient_client import PatientClient, newest
from penstock.cli.printing import Json, console, say_json
from penstock.domain.work.lane import Lane
from penstock.domain.work.terms import OnInvalid
from penstock.stack.problem import Problem

app = typer.Typer(no_args_is_help=True, help="Submit JSONL files, watch them, fetch their results.")

Endpoint = Annotated[str | None, typer.Option(help="What every line asks; else what the first line says.")]
Urgency = Annotated[Lane, typer.Option(help="How urgent it is.")]


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="JSONL, one request a line.")],
    endpoint: Endpoint = None,
    window: Window = "24h",
    lane: Urgency = Lane.STANDARD,
    model: Model = None,
    on_invalid: Annotated[
        OnInvalid, typer.Option(help="A line that can't be asked fails the batch, or goes to the error file.")
    ] = OnInvalid.FAIL,
    trace: Annotated[bool, typer.Option("--trace", help="Keep what each member of an ensemble said, too.")] = False,
    wait: Wait = False,
    fail_on_errors: FailOnErrors = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Upload a file and make a batch of it; prints its id."""
    with told(), connected(url, data) as client:
        asks = endpoint or first_url(file, skipping=on_invalid is OnInvalid.SKIP)
        asked = {"endpoint": asks, "completion_window": window, "lane": str(lane)}
        asked |= {"on_invalid": str(on_invalid)} | ({"model": model} if model else {})
        more = {"input_file_id": upload(client, file), "trace": trace}
        batch = ask(client, "POST", "/batches", json={**asked, **more})
        made(PatientClient(client, known=True), batch, wait, fail_on_errors, as_json)


@app.command()
def estimate(
    file: Annotated[str, typer.Argument(help="JSONL, one request a line, or the id of a file that is there.")],
    endpoint: Endpoint = None,
    window: Window = "24h",
    lane: Urgency = Lane.STANDARD,
    model: Model = None,
    as_json: Json = False,
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
            say_json(one)
        else:
            print_estimate(one, console())


@app.command("list")
def list_(
    jobs: Annotated[bool, typer.Option("--jobs", help="Jobs, as `penstock jobs list`.")] = False,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 20,
    keep: Watch = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """List batches, newest first."""
    with told(), connected(url, data) as client:
        patient = PatientClient(client)
        route = "/jobs" if jobs else "/batches"
        once_or_kept(lambda: newest(patient, route, limit), lambda page: many(page["data"]), keep, as_json)


one_batch.join(app)
app.command()(results)
app.command()(lines)
app.command()(errors)
