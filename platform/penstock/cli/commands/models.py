"""`penstock models`: what batches may name. Adding one needs the database: it is the operator's word."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, told
from penstock.cli.commands import model_versions
from penstock.cli.database import opened
from penstock.cli.printing import Json, listed, say, say_json, show, table
from penstock.domain.accounts.price import Price, rate
from penstock.stack.problem import Problem

if TYPE_CHECKING:
    from penstock.service.core.transaction import Database

app = typer.Typer(
    no_args_is_help=True, help="List and show models, make one known, roll versions out, promise latencies, set prices."
)

Name = Annotated[str, typer.Argument(help="The model.")]


@app.command("list")
def list_(as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """List known models, how many live workers serve each, and what their waiting calls are promised."""
    with told(), connected(url, data) as client:
        found = ask(client, "GET", "/models")
        if as_json:
            say_json(found)
            return
        rows = (
            (one["id"], str(one["live_workers"]),
             *(f"{ms} ms" if ms else "" for ms in (one["ttft_p95_ms"], one["itl_p95_ms"])))
            for one in found["data"]
        )  # fmt: skip
        show(table(("model", "live workers", "ttft p95", "itl p95"), rows))


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The name that lines use.")],
    source: Annotated[str | None, typer.Option(help="Add a version of it: a folder, file or Hugging Face id.")] = None,
    base: Annotated[
        str | None, typer.Option(help="It is a LoRA adapter: the model or version that it hangs on.")
    ] = None,
    engine: Annotated[str, typer.Option(help="The engine that the version is started with.")] = "vllm",
    engine_arg: Annotated[list[str] | None, typer.Option(help="An argument of the engine; may be repeated.")] = None,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Make a model known: its batches wait for a worker instead of failing.

    With --source it is a version, a draft until a worker serves just that: source, engine and arguments. With --base,
    too, it is a LoRA adapter, which workers of its base load when it is asked.
    """
    with told(), opened(data) as db:
        from penstock.service.admin import models

        if base is not None:
            _add_adapter(db, name, source, base, as_json)
            return
        if source is not None:
            _add_version(db, name, source, engine, engine_arg or [], as_json)
            return
        is_new = db.run(models.add, name)
        say_json(_shape(db, name)) if as_json else say(f"{name} is {'known now' if is_new else 'known already'}")


def _add_adapter(db: Database, name: str, source: str | None, base: str, as_json: bool) -> None:
    from penstock.api.schemas import registry_shapes
    from penstock.service.models import adapters, versions
    from penstock.settings import load

    if source is None:
        raise Problem("Say where the adapter is: --source FOLDER, or a Hugging Face id.")
    on = db.run(adapters.base, base)
    made = db.run(adapters.add, name, on, adapters.look(source, on))
    shape = registry_shapes.version(db.run(versions.view, made.name, load()), operator=True)
    where = made.definition.source
    say_json(shape) if as_json else say(f"{made.name} is an adapter on {on.name}, from {where}")


def _add_version(db: Database, name: str, source: str, engine: str, arguments: list[str], as_json: bool) -> None:
    from penstock.api.schemas import registry_shapes
    from penstock.model_source.definition import defined_here
    from penstock.service.models import versions
    from penstock.settings import load

    made = db.run(versions.add, name, defined_here(source, engine, arguments))
    shape = registry_shapes.version(db.run(versions.view, made.name, load()), operator=True)
    say_json(shape) if as_json else say(f"{made.name} is a {made.state}: {engine} with {made.definition.source}")


@app.command()
def slo(
    name: Name,
    ttft_p95_ms: Annotated[int | None, typer.Option(help="Time to first token; 0 clears it.", min=0)] = None,
    itl_p95_ms: Annotated[int | None, typer.Option(help="Time between tokens; 0 clears it.", min=0)] = None,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Promise a model's waiting calls a latency at the 95th percentile: batch work leaves room for it."""
    with told(), opened(data) as db:
        from penstock.service.admin import models

        if ttft_p95_ms is None and itl_p95_ms is None:
            raise Problem("Say --ttft-p95-ms or --itl-p95-ms, or both; 0 clears one.")
        slo = db.run(models.promise, name, ttft_p95_ms=ttft_p95_ms, itl_p95_ms=itl_p95_ms)
        promised = (("ttft", slo.ttft_p95_ms), ("itl", slo.itl_p95_ms))
        words = ", ".join(f"{what} p95 {ms} ms" for what, ms in promised if ms)
        say_json(_shape(db, name)) if as_json else say(f"{name}: {words or 'nothing promised'}")


def _shape(db: Database, name: str) -> Any:
    """What `GET /v1/models/{id}` says."""
    from penstock.api.schemas import shapes
    from penstock.service.admin import models
    from penstock.settings import load

    return shapes.model(db.run(models.get, name, load()))


@app.command()
def price(
    name: Name,
    input: Annotated[str | None, typer.Option(help="Of a million input tokens, e.g. 0.15.")] = None,
    cached_input: Annotated[str | None, typer.Option(help="Of a million cached ones; else as --input.")] = None,
    output: Annotated[str | None, typer.Option(help="Of a million output tokens.")] = None,
    gpu_second: Annotated[str | None, typer.Option(help="Of one GPU for one second.")] = None,
    currency: Annotated[str | None, typer.Option(help="The same for all models; USD unless told.")] = None,
    valid_from: Annotated[datetime | None, typer.Option(help="In UTC; from now on unless told.")] = None,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Set what a model's work costs from now on, at most six decimals; what is recorded already keeps its cost."""
    with told(), opened(data) as db:
        from penstock.service.admin import prices

        if all(one is None for one in (input, cached_input, output, gpu_second)):
            raise Problem("Say --input, --cached-input, --output or --gpu-second.")
        since = valid_from and valid_from.replace(tzinfo=UTC)
        set = db.run(prices.set_price, name, input=input, cached_input=cached_input, output=output,
                     gpu_second=gpu_second, currency=currency, valid_from=since)  # fmt: skip
        words = f"{name}: {_price(set)} from {set.valid_from.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC on"
        say_json(_price_shape(set)) if as_json else say(words)


@app.command("prices")
def prices_(as_json: Json = False, data: Data = DEFAULT_DATA) -> None:
    """List all prices, past and coming ones too."""
    with told(), opened(data) as db:
        from penstock.service.admin import prices

        found = db.run(prices.page)
        if as_json:
            say_json(listed(map(_price_shape, found)))
            return
        rows = ((one.model, f"{one.valid_from.astimezone(UTC):%Y-%m-%d %H:%M:%S}", _price(one)) for one in found)
        show(table(("model", "from (UTC)", "price"), rows))


def _price(one: Price) -> str:
    tokens = f"{rate(one.input)} in, {rate(one.cached_input)} cached, {rate(one.output)} out per million tokens"
    return f"{tokens}, {rate(one.gpu)} per GPU-second, in {one.currency}"


def _price_shape(one: Price) -> dict[str, Any]:
    """As the options say it: amounts are decimal numbers as text, the time is Unix seconds."""
    return {
        "object": "price",
        "model": one.model,
        "valid_from": int(one.valid_from.timestamp()),
        "currency": one.currency,
        "input": rate(one.input),
        "cached_input": rate(one.cached_input),
        "output": rate(one.output),
        "gpu_second": rate(one.gpu),
    }


model_versions.add_to(app)
