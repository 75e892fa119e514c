"""`penstock workers`: the fleet: who there is, how each stands, and orders to it. It needs an operator's key."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, told
from penstock.cli.engine_option import lacks
from penstock.cli.kept_shown import Watch, once_or_kept
from penstock.cli.patient_client import LOOK_AGAIN_SECONDS, PatientClient, newest
from penstock.cli.printing import Json, say, say_json, table, utc
from penstock.cli.printing import show as print_table
from penstock.domain.work.batch_words import duration
from penstock.stack.problem import Problem

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

app = typer.Typer(
    no_args_is_help=True, help="List workers, drain them, restart their engines (needs an operator's key)."
)

_MOST: Final = 10_000
_SHORT: Final = 8
"""Characters of an id in the list."""
_HEADS: Final = (
    "id", "kind", "model", "state", "host", "pid", "last seen", "leases", "lines", "calls", "slots", "tok/s", "version",
)  # fmt: skip

Id = Annotated[str, typer.Argument(help="Its id, or as much of its beginning as no other has.", metavar="ID")]
Wait = Annotated[bool, typer.Option("--wait", help="Return once it is done; Ctrl-C takes nothing back.")]


@app.command("list")
def list_(
    gone: Annotated[bool, typer.Option("--gone", help="Those that have ended, too; they are known for a day.")] = False,
    watch: Watch = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """List gpu workers, io workers and keepers: how each stands, when it was last heard of, and what it has in hand."""
    with told(), connected(url, data) as client:
        patient = PatientClient(client)
        once_or_kept(lambda: _every(patient, gone), lambda found: _shown(found["data"]), watch, as_json)


@app.command()
def show(id: Id, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Show one worker."""
    with told(), connected(url, data) as client:
        one = _found(PatientClient(client), id)
        say_json(one) if as_json else print_table(table((), _facts(one)))


@app.command()
def drain(id: Id, wait: Wait = False, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Let a worker take nothing new: what it holds goes on to its end, and its process stays.

    It hears that with its next beat, and is `drained` once it holds nothing. A process that is started anew takes work.
    """
    one = _order(id, "drain", lambda now: not wait or now["state"] == "drained", url, data)
    _say(one, "is drained" if one["state"] == "drained" else "drains", as_json)


@app.command()
def undrain(id: Id, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Let a drained worker take work again."""
    _say(_order(id, "undrain", lambda now: True, url, data), "takes work", as_json)


@app.command()
def restart(
    id: Id, wait: Wait = False, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA
) -> None:
    """End a worker's engine and start it again; the worker's process stays.

    Lines in flight have a few seconds to be answered, then slices are given back, without blame, for any worker.
    """
    one = _order(id, "restart", lambda now: not wait or "restart" not in now["orders"], url, data)
    _say(one, "restarts its engine" if "restart" in one["orders"] else "has restarted its engine", as_json)


def _order(id: str, what: str, done: Callable[[dict[str, Any]], bool], url: str, data: Path) -> dict[str, Any]:
    """Give an order, and look until it is done; how the worker stands then. Problem if it ends or falls silent."""
    with told(), connected(url, data) as client:
        patient = PatientClient(client)
        one: dict[str, Any] = ask(client, "POST", f"/workers/{_found(patient, id)['id']}/{what}")
        while not done(one):
            if one["state"] in ("gone", "lost"):
                raise Problem(f"Worker {one['id']} is {one['state']}.")
            time.sleep(LOOK_AGAIN_SECONDS)
            one = patient.json(f"/workers/{one['id']}")
        return one


def _say(one: dict[str, Any], does: str, as_json: bool) -> None:
    say_json(one) if as_json else say(f"{one['id']} on {one['host']} {does}")


def _every(patient: PatientClient, gone: bool) -> dict[str, Any]:
    return newest(patient, "/workers", _MOST, gone="true" if gone else None)


def _found(patient: PatientClient, id: str) -> dict[str, Any]:
    """The one worker whose id begins so. Raises Problem."""
    found = [one for one in _every(patient, gone=True)["data"] if one["id"].startswith(id.lower())]
    if not found:
        raise Problem(f"No worker's id begins with {id!r}: `penstock workers list` shows them.")
    if len(found) > 1:
        some = ", ".join(one["id"] for one in found[:3])
        raise Problem(f"{len(found)} workers' ids begin with {id!r}: {some}{', …' if len(found) > 3 else ''}.")
    return dict(found[0])


def _shown(found: list[dict[str, Any]]) -> Group:
    """The table, and below it what is wrong with whom."""
    from rich.console import Group

    return Group(_table(found), *(f"{one['id'][:_SHORT]}: {one['trouble']}" for one in found if one["trouble"]))


def _table(found: list[dict[str, Any]]) -> Table:
    return table(_HEADS, map(_row, found))


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    load = one["load"] or {}
    is_gpu = bool(load) and one["kind"] == "gpu"
    return (
        one["id"][:_SHORT],
        one["kind"],
        one["model"] or "",
        _state(one),
        one["host"],
        str(one["pid"]),
        f"{duration(one['last_seen_seconds'])} ago",
        str(load["leases"]) if load and one["kind"] != "keeper" else "",
        *(f"{load[what]:,}" if is_gpu else "" for what in ("lines", "calls")),
        _slots(one["engine_slots"]),
        f"{load['tokens_per_second']:,.0f}" if is_gpu else "",
        one["version"],
    )


def _slots(slots: dict[str, Any] | None) -> str:
    """Those that somebody holds, of all; and those that are closed to lines: `40/128, 60 closed`."""
    if slots is None:
        return ""
    closed = f", {slots['closed']:,} closed" if slots["closed"] else ""
    return f"{slots['calls'] + sum(slots['lines'].values()):,}/{slots['total']:,}{closed}"


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
    if one["engine"]:
        yield "engine profile", one["engine"]
        yield from lacks(one["lacks"])
    yield "state", _state(one)
    if one["trouble"]:
        yield "trouble", one["trouble"]
    yield "process", f"{one['pid']} on {one['host']}" + (f", region {one['region']}" if one["region"] else "")
    yield "version", one["version"]
    if one["device"]:
        yield "device", one["device"]
    yield "started", f"{utc(one['started_at'])} UTC"
    yield "last seen", f"{duration(one['last_seen_seconds'])} ago"
    load = one["load"]
    if load and one["kind"] != "keeper":
        yield "holds", f"{load['leases']} leases" if one["kind"] == "io" else f"{load['leases']} slices"
    if load and one["kind"] == "gpu":
        yield "engine", f"{load['lines']:,} lines of {load['budget']:,} now and {one['slots']:,} at most"
        yield "calls inside", f"{load['calls']:,}"
        yield "speed", f"{load['tokens_per_second']:,.0f} tokens/s"
    if one["engine_slots"]:
        yield from _of_engine(one["engine_slots"], one["waiting"], one["engine_now"])


def _of_engine(slots: dict[str, Any], waiting: dict[str, int], now: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The engine's slots, who waits for one, and what it says of itself."""
    taken = [("calls", slots["calls"]), *((f"lines of lane {lane}", count) for lane, count in slots["lines"].items())]
    rest = [("free", slots["free"]), ("closed", slots["closed"]), ("kept for calls", slots["reserved"])]
    parts = ", ".join(f"{count:,} {name}" for name, count in [*taken, *rest] if count)
    yield "slots", f"{slots['total']:,}: {parts}"
    if slots["closed_because"]:
        yield "closed because", slots["closed_because"]
    yield "waiting", ", ".join(f"{count:,} {name}" for name, count in waiting.items() if count) or "nobody"
    if now["kv_usage"] is not None:
        thrown = f", {now['preemptions']:,} preemptions" if now["preemptions"] is not None else ""
        yield "KV cache", f"{now['kv_usage']:.0%} in use{thrown}"
    if now["prefix_hit_rate"] is not None:
        yield "prefix cache", f"{now['prefix_hit_rate']:.0%} of the prompt tokens were there"
    if now["output_tokens_per_second"] is not None:
        read, made = now["input_tokens_per_second"], now["output_tokens_per_second"]
        yield "last minute", f"{read:,.0f} tokens/s read, {made:,.0f} made"
    if now["ttft"]["calls"]:
        met = now["ttft"]
        yield "first tokens", f"p50 {met['p50_ms']:,.0f} ms, p95 {met['p95_ms']:,.0f} ms of {met['calls']:,} calls"
