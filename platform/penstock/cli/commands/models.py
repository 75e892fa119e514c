"""`penstock models`: what batches may name. Adding one needs the database: it is the operator's word."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, console, told
from penstock.cli.database import opened
from penstock.domain.accounts.price import Price, rate
from penstock.service.admin import models, prices
from penstock.stack.problem import Problem

app = typer.Typer(no_args_is_help=True, help="List known models, make one known, promise latencies, set prices.")
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


@app.command()
def price(
    name: Annotated[str, typer.Argument(help="The model.")],
    input: Annotated[str | None, typer.Option(help="Of a million input tokens, e.g. 0.15.")] = None,
    cached_input: Annotated[str | None, typer.Option(help="Of a million cached ones; else as --input.")] = None,
    output: Annotated[str | None, typer.Option(help="Of a million output tokens.")] = None,
    gpu_second: Annotated[str | None, typer.Option(help="Of one GPU for one second.")] = None,
    currency: Annotated[str | None, typer.Option(help="The same for all models; USD unless told.")] = None,
    valid_from: Annotated[datetime | None, typer.Option(help="In UTC; from now on unless told.")] = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Set what a model's work costs from now on, at most six decimals; what is recorded already keeps its cost."""
    with told(), opened(data) as db:
        if all(one is None for one in (input, cached_input, output, gpu_second)):
            raise Problem("Say --input, --cached-input, --output or --gpu-second.")
        since = valid_from and valid_from.replace(tzinfo=UTC)
        set = db.run(prices.set_price, name, input=input, cached_input=cached_input, output=output,
                     gpu_second=gpu_second, currency=currency, valid_from=since)  # fmt: skip
        out.print(f"{name}: {_price(set)} from {set.valid_from.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC on")


@app.command("prices")
def prices_(data: Data = DEFAULT_DATA) -> None:
    """List all prices, past and coming ones too."""
    table = Table("model", "from (UTC)", "price", box=None, pad_edge=False)
    with told(), opened(data) as db:
        for one in db.run(prices.page):
            table.add_row(one.model, f"{one.valid_from.astimezone(UTC):%Y-%m-%d %H:%M:%S}", _price(one))
        out.print(table)


def _price(one: Price) -> str:
    tokens = f"{rate(one.input)} in, {rate(one.cached_input)} cached, {rate(one.output)} out per million tokens"
    return f"{tokens}, {rate(one.gpu)} per GPU-second, in {one.currency}"
