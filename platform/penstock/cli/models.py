"""`penstock models`: what batches may name. Adding one needs the database: it is the operator's word."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, console, told
from penstock.cli.database import opened
from penstock.service import models
from penstock.stack.problem import Problem

app = typer.Typer(no_args_is_help=True, help="List known models, make one known, promise latencies.")
out = console()


@app.command("list")
def list_(url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """List known models, how many live workers serve each, and what their waiting calls are promised."""
    table = Table("model", "live workers", "ttft p95", "itl p95", box=None, pad_edge=False)
    with told(), connected(url, data) as client:
        for model in ask(client, "GET", "/models")["data"]:
            promised = (f"{ms} ms" if ms else "" for ms in (model["ttft_p95_ms"], model["itl_p95_ms"]))
            table.add_row(model["id"], str(model["live_workers"]), *promised)
        out.print(table)


@app.command()
def add(name: Annotated[str, typer.Argument(help="The name that lines use.")], data: Data = DEFAULT_DATA) -> None:
    """Make a model known: its batches wait for a worker instead of failing."""
    with told(), opened(data) as db:
        out.print(f"{name} is {'known now' if db.run(models.add, name) else 'known already'}")


@app.command()
def slo(
    name: Annotated[str, typer.Argument(help="The model.")],
    ttft_p95_ms: Annotated[int | None, typer.Option(help="Time to first token; 0 clears it.", min=0)] = None,
    itl_p95_ms: Annotated[int | None, typer.Option(help="Time between tokens; 0 clears it.", min=0)] = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Promise a model's waiting calls a latency at the 95th percentile: batch work leaves room for it."""
    with told(), opened(data) as db:
        if ttft_p95_ms is None and itl_p95_ms is None:
            raise Problem("Say --ttft-p95-ms or --itl-p95-ms, or both; 0 clears one.")
        slo = db.run(models.promise, name, ttft_p95_ms=ttft_p95_ms, itl_p95_ms=itl_p95_ms)
        promised = (("ttft", slo.ttft_p95_ms), ("itl", slo.itl_p95_ms))
        words = ", ".join(f"{what} p95 {ms} ms" for what, ms in promised if ms)
        out.print(f"{name}: {words or 'nothing promised'}")
