"""`penstock workers`: the fleet: who there is, how each stands, and orders to it. It needs an operator's key."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final

import httpx
import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table

from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, console, json_text, told
from penstock.cli.watch import duration
from penstock.stack.problem import Problem

app = typer.Typer(
    no_args_is_help=True, help="List workers, drain them, restart their engines (needs an operator's key)."
)
out = console()

_LOOK_SECONDS: Final = 1.0
_SHORT: Final = 8
"""Characters of an id in the list."""
_COLUMNS: Final = (
    "id", "kind", "model", "state", "host", "pid", "last seen", "leases", "lines", "calls", "tok/s", "version",
)  # fmt: skip
_OF_ENGINE: Final = ("lines", "calls", "tokens_per_second")

Id = Annotated[str, typer.Argument(help="Its id, or as much of its beginning as no other has.", metavar="ID")]
AsJson = Annotated[bool, typer.Option("--json", help="The API's objects, one a line.")]
Gone = Annotated[bool, typer.Option("--gone", help="Those that have ended, too; they are known for a day.")]
Wait = Annotated[bool, typer.Option("--wait", help="Return once it is done; Ctrl-C takes nothing back.")]


@app.command("list")
def list_(
    gone: Gone = False,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew each second, until Ctrl-C.")] = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """List gpu workers, io workers and keepers: how each stands, when it was last heard of, and what it has in hand."""
    with told(), connected(url, data) as client:
        while True:
            found = _all(client, gone)
            if as_json:
                for one in found:
                    out.print(json_text(one), soft_wrap=True)
            elif watch and out.is_terminal:
                _live(client, found, gone)
            else:
                out.print(_shown(found), soft_wrap=True)
            if not watch:
                return
            time.sleep(_LOOK_SECONDS)


@app.command()
def show(
    id: Id,
    as_json: Annotated[bool, typer.Option("--json", help="The API's object, as it is.")] = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Show one worker."""
    with told(), connected(url, data) as client:
        one = _found(client, id)
        if as_json:
            out.print(json_text(one, indent=2), soft_wrap=True)
            return
        table = Table(box=None, pad_edge=False, show_header=False)
        for what, value in _facts(one):
            table.add_row(what, value)
        out.print(table)


@app.command()
def drain(id: Id, wait: Wait = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Let a worker take nothing new: what it holds goes on to its end, and its process stays.

    It hears that with its next beat, and is `drained` once it holds nothing. A process that is started anew takes work.
    """
    with _ordered(id, "drain", url, data) as (client, one):
        if wait:
            one = _until(client, one, lambda now: now["state"] == "drained")
        _say(one, "is drained" if one["state"] == "drained" else "drains")


@app.command()
def undrain(id: Id, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Let a drained worker take work again."""
    with _ordered(id, "undrain", url, data) as (_, one):
        _say(one, "takes work")


@app.command()
def restart(id: Id, wait: Wait = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """End a worker's engine and start it again; the worker's process stays.

    Lines in flight have a few seconds to be answered, then slices are given back, without blame, for any worker.
    """
    with _ordered(id, "restart", url, data) as (client, one):
        if wait:
            one = _until(client, one, lambda now: "restart" not in now["orders"])
        _say(one, "restarts its engine" if "restart" in one["orders"] else "has restarted its engine")


@contextmanager
def _ordered(id: str, what: str, url: str, data: Any) -> Iterator[tuple[httpx.Client, dict[str, Any]]]:
    with told(), connected(url, data) as client:
        yield client, ask(client, "POST", f"/workers/{_found(client, id)['id']}/{what}")


def _say(one: dict[str, Any], does: str) -> None:
    out.print(f"{one['id']} on {one['host']} {does}")


def _until(client: httpx.Client, one: dict[str, Any], done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Look until it is done. Raises Problem if the worker ends or falls silent before."""
    while not done(one):
        if one["state"] in ("gone", "lost"):
            raise Problem(f"Worker {one['id']} is {one['state']}.")
        time.sleep(_LOOK_SECONDS / 2)
        one = ask(client, "GET", f"/workers/{one['id']}")
    return one


def _all(client: httpx.Client, gone: bool) -> list[dict[str, Any]]:
    """Every worker, page by page."""
    found: list[dict[str, Any]] = []
    params: dict[str, Any] = {"limit": 100, "gone": gone}
    while True:
        page = ask(client, "GET", "/workers", params=params)
        found += page["data"]
        if not page["has_more"]:
            return found
        params["after"] = page["last_id"]


def _found(client: httpx.Client, id: str) -> dict[str, Any]:
    """The one worker whose id begins so. Raises Problem."""
    found = [one for one in _all(client, gone=True) if one["id"].startswith(id.lower())]
    if not found:
        raise Problem(f"No worker's id begins with {id!r}: `penstock workers list` shows them.")
    if len(found) > 1:
        some = ", ".join(one["id"] for one in found[:3])
        raise Problem(f"{len(found)} workers' ids begin with {id!r}: {some}{', …' if len(found) > 3 else ''}.")
    return dict(found[0])


def _live(client: httpx.Client, found: list[dict[str, Any]], gone: bool) -> None:
    with Live(_shown(found), console=out, auto_refresh=False) as live:
        while True:
            time.sleep(_LOOK_SECONDS)
            live.update(_shown(_all(client, gone)), refresh=True)


def _shown(found: list[dict[str, Any]]) -> Group:
    """The table, and below it what is wrong with whom."""
    return Group(_table(found), *(f"{one['id'][:_SHORT]}: {one['trouble']}" for one in found if one["trouble"]))


def _table(found: list[dict[str, Any]]) -> Table:
    table = Table(*_COLUMNS, box=None, pad_edge=False)
    for one in found:
        load = one["load"] or {}
        engine = [f"{load[what]:,.0f}" if load and one["kind"] == "gpu" else "" for what in _OF_ENGINE]
        leases = str(load["leases"]) if load and one["kind"] != "keeper" else ""
        table.add_row(
            one["id"][:_SHORT],
            one["kind"],
            one["model"] or "",
            _state(one),
            one["host"],
            str(one["pid"]),
            f"{duration(one['last_seen_seconds'])} ago",
            leases,
            *engine,
            one["version"],
        )
    return table


def _state(one: dict[str, Any]) -> str:
    """`ready`, and what was ordered and is not done: `draining`, `starting (restart)`."""
    orders = [order for order in one["orders"] if order != "drain"]
    return f"{one['state']} ({', '.join(orders)})" if orders else str(one["state"])


def _facts(one: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "id", one["id"]
    yield "kind", one["kind"]
    if one["model"]:
        yield "model", one["model"]
        yield "calls to", ", ".join(one["serves"]) or "none"
    yield "state", _state(one)
    if one["trouble"]:
        yield "trouble", one["trouble"]
    yield "process", f"{one['pid']} on {one['host']}" + (f", region {one['region']}" if one["region"] else "")
    yield "version", one["version"]
    yield "started", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(one["started_at"]))
    yield "last seen", f"{duration(one['last_seen_seconds'])} ago"
    load = one["load"]
    if load and one["kind"] != "keeper":
        yield "holds", f"{load['leases']} leases" if one["kind"] == "io" else f"{load['leases']} slices"
    if load and one["kind"] == "gpu":
        yield "engine", f"{load['lines']:,} lines of {load['budget']:,} now and {one['slots']:,} at most"
        yield "calls inside", f"{load['calls']:,}"
        yield "speed", f"{load['tokens_per_second']:,.0f} tokens/s"
