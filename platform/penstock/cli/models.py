"""`penstock models`: what batches may name. Adding one needs the database: it is the operator's word."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, console, told
from penstock.cli.database import opened
from penstock.service import models

app = typer.Typer(no_args_is_help=True, help="List known models, or make one known before a worker serves it.")
out = console()


@app.command("list")
def list_(url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """List known models, and how many live workers serve each."""
    table = Table("model", "live workers", box=None, pad_edge=False)
    with told(), connected(url, data) as client:
        for model in ask(client, "GET", "/models")["data"]:
            table.add_row(model["id"], str(model["live_workers"]))
        out.print(table)


@app.command()
def add(name: Annotated[str, typer.Argument(help="The name that lines use.")], data: Data = DEFAULT_DATA) -> None:
    """Make a model known: its batches wait for a worker instead of failing."""
    with told(), opened(data) as db:
        out.print(f"{name} is {'known now' if db.run(models.add, name) else 'known already'}")
