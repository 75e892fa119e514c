"""`penstock files`: inputs and results, on their way to the API and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.batch_page import local_time
from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, told
from penstock.cli.input_file import send
from penstock.cli.patient_client import PatientClient, newest
from penstock.cli.printing import Json, listed, say, say_json, show, table
from penstock.cli.results import fetch
from penstock.domain.file import BATCH

app = typer.Typer(no_args_is_help=True, help="Upload, list, download and delete files.")

Id = Annotated[str, typer.Argument(help="A file's id.", metavar="FILE_ID")]


@app.command()
def upload(
    files: Annotated[list[Path], typer.Argument(help="Each becomes a file; a batch's may be gzip.", metavar="FILE...")],
    purpose: Annotated[str, typer.Option(help="Batches are made of `batch` only.")] = BATCH,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Upload files; prints the id of each."""
    sent = []
    with told(), connected(url, data) as client:
        for file in files:
            sent.append(send(client, file, purpose))
            if not as_json:
                say(sent[-1]["id"])
        if as_json:
            say_json(listed(sent))


@app.command("list")
def list_(
    purpose: Annotated[str | None, typer.Option(help="Only files with this purpose: batch, batch_output, …")] = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1)] = 20,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """List files, newest first."""
    with told(), connected(url, data) as client:
        page = newest(PatientClient(client), "/files", limit, purpose=purpose)
        if as_json:
            say_json(page)
            return
        rows = (
            (one["id"], one["purpose"], f"{one['bytes']:,}", *map(local_time, (one["created_at"], one["expires_at"])),
             one["filename"]) for one in page["data"]
        )  # fmt: skip
        show(table(("id", "purpose", "bytes", "created", "expires", "name"), rows))


@app.command("show")
def show_(id: Id, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Show one file: its name, purpose and size, and until when it is kept."""
    with told(), connected(url, data) as client:
        one = ask(client, "GET", f"/files/{id}")
        if as_json:
            say_json(one)
            return
        facts = {
            "id": one["id"],
            "name": one["filename"],
            "purpose": one["purpose"],
            "bytes": f"{one['bytes']:,}",
            "created": local_time(one["created_at"]),
            "expires": local_time(one["expires_at"]) or "never",
        }
        show(table((), facts.items()))


@app.command()
def download(
    id: Id,
    output: Annotated[Path | None, typer.Option(help="Where it goes; standard output unless told.")] = None,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Write a file's bytes to standard output, or to a file that is there only once it is whole."""
    with told(), connected(url, data) as client:
        fetch(client, id, output)


@app.command()
def delete(id: Id, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Delete a file and its bytes."""
    with told(), connected(url, data) as client:
        gone = ask(client, "DELETE", f"/files/{id}")
        say_json(gone) if as_json else say(f"{id} deleted")
