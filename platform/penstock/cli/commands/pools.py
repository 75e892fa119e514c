"""`penstock pools`: machines that serve more versions than fit at once, and what they decide.

They need an operator's key.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, told
from penstock.cli.patient_client import PatientClient, newest
from penstock.cli.printing import Json, say, say_json, table, utc
from penstock.cli.printing import show as print_table
from penstock.domain.api_errors import BadRequest
from penstock.domain.work.batch_words import duration

app = typer.Typer(
    no_args_is_help=True,
    help="Pools of machines that serve more versions than fit at once: make them, ask why they switch "
    "(needs an operator's key).",
)


def _pools_name(name: str) -> str:
    """A name that a pool can have: what an address can't hold, or would take for something else, is none."""
    from penstock.domain.pools.pool import check_name

    try:
        return check_name(name)
    except BadRequest as error:
        raise typer.BadParameter(error.message) from None


Name = Annotated[str, typer.Argument(help="The pool's name.", metavar="POOL", callback=_pools_name)]
Version = Annotated[str, typer.Argument(help="One of its versions, e.g. chat@v2.", metavar="NAME@VERSION")]


@app.command("list")
def list_(as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """List pools: what is awake, how many versions each may serve, and what waits for them."""
    with told(), connected(url, data) as client:
        found = newest(PatientClient(client), "/pools", sys.maxsize)
        if as_json:
            say_json(found)
            return
        heads = ("pool", "kind", "device", "hosts", "awake", "versions", "waiting tokens")
        print_table(table(heads, (
            (one["id"], one["kind"], one["device"] or "", str(len(one["hosts"])), _awake(one) or "nothing",
             str(len(one["versions"])), f"{sum(version['waiting_tokens'] for version in one['versions']):,}")
            for one in found["data"]
        )))  # fmt: skip


@app.command()
def show(name: Name, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Show a pool: each version, how it is, and what waits for it."""
    with told(), connected(url, data) as client:
        one = ask(client, "GET", f"/pools/{name}")
        if as_json:
            say_json(one)
            return
        say(f"{one['id']}: {', '.join(_words(one))}")
        print_table(table(("version", "state", "waiting tokens", ""), (
            (version["version"], version["state"], f"{version['waiting_tokens']:,}", _remarks(version))
            for version in one["versions"]
        )))  # fmt: skip
        for host in one["hosts"]:
            say(f"host {host['host']} ({host['id'][:8]}): {_residents(host)}")


@app.command()
def decisions(
    name: Name,
    limit: Annotated[int, typer.Option(help="So many, the newest first.", min=1)] = 20,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """List a pool's switches: who left, who came, why, how far it is, and what it took."""
    with told(), connected(url, data) as client:
        found = newest(PatientClient(client), f"/pools/{name}/decisions", limit)
        if as_json:
            say_json(found)
            return
        heads = ("at (UTC)", "leaves", "comes", "why", "how", "state", "seconds", "")
        print_table(table(heads, (_decision(one) for one in found["data"])))


@app.command()
def wake(
    name: Name, version: Version, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA
) -> None:
    """Let a version be the next that is awake; then it takes turns as others do. One that was unfit is tried again."""
    _act(name, "wake", {"version": version}, f"{version} is next in pool {name}", as_json, (url, data))


@app.command()
def pin(name: Name, version: Version, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Wake a version and keep it awake until it is unpinned."""
    _act(name, "pin", {"version": version}, f"{version} is pinned in pool {name}", as_json, (url, data))


@app.command()
def unpin(
    name: Name, version: Version, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA
) -> None:
    """Let a version take turns as others do."""
    _act(name, "unpin", {"version": version}, f"{version} takes turns in pool {name}", as_json, (url, data))


@app.command()
def cancel(name: Name, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Cancel a switch that has not begun to stop an engine; who should have come is left alone for five minutes."""
    with told(), connected(url, data) as client:
        one = ask(client, "POST", f"/pools/{name}/cancel")
        say_json(one) if as_json else say(f"{one['leaves'] or 'a free place'} → {one['comes']} is cancelled")


@app.command()
def create(
    name: Name,
    version: Annotated[
        list[str],
        typer.Option("--version", help="A version that it may serve; may be repeated.", metavar="NAME@VERSION"),
    ],
    on_demand: Annotated[
        list[str] | None,
        typer.Option("--on-demand", help="One of them that waiting calls may wake.", metavar="NAME@VERSION"),
    ] = None,
    awake: Annotated[int, typer.Option(help="So many at once, on each host.", min=1)] = 1,
    dedicated: Annotated[bool, typer.Option("--dedicated", help="All of them are awake, always.")] = False,
    device: Annotated[str | None, typer.Option(help="What its machines have, e.g. h100.")] = None,
    region: Annotated[str | None, typer.Option(help="Where they are.")] = None,
    gpu_second: Annotated[str | None, typer.Option(help="What a GPU-second of it costs.", metavar="AMOUNT")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Make a pool of versions that there are (`penstock models add`); its hosts are started with its name.

    `penstock worker --pool NAME` on each machine.
    """
    strangers = [one for one in on_demand or () if one not in version]
    if strangers:
        raise typer.BadParameter(f"--on-demand {strangers[0]} is none of its versions.")
    body: dict[str, Any] = {
        "name": name,
        "kind": "dedicated" if dedicated else "shared",
        "versions": [{"version": one, "on_demand": one in (on_demand or ())} for one in version],
        "device": device,
        "region": region,
        "gpu_second": gpu_second,
    }
    if not dedicated:
        body["terms"] = {"awake": awake}
    with told(), connected(url, data) as client:
        one = ask(client, "POST", "/pools", json=body)
        words = (
            f"pool {one['id']} has {len(one['versions'])} versions: start hosts with `penstock worker --pool {name}`"
        )
        say_json(one) if as_json else say(words)


@app.command()
def remove(name: Name, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Remove a pool and its decisions; its versions stay. Its hosts must have ended."""
    with told(), connected(url, data) as client:
        one = ask(client, "DELETE", f"/pools/{name}")
        say_json(one) if as_json else say(f"pool {name} is removed")


def _act(name: str, what: str, body: dict[str, Any], words: str, as_json: bool, where: tuple[str, Any]) -> None:
    with told(), connected(*where) as client:
        one = ask(client, "POST", f"/pools/{name}/{what}", json=body)
        say_json(one) if as_json else say(words)


def _awake(pool: dict[str, Any]) -> str:
    return ", ".join(one["version"] for one in pool["versions"] if one["state"] == "awake")


def _words(pool: dict[str, Any]) -> list[str]:
    terms = pool["terms"]
    found = [pool["kind"], f"{terms['awake']} awake at once"]
    found += [f"device {pool['device']}"] if pool["device"] else []
    found += [f"region {pool['region']}"] if pool["region"] else []
    bounds = [f"{lane} {duration(seconds)}" for lane, seconds in terms["bounds"].items() if seconds is not None]
    found += [f"oldest waits at most: {', '.join(bounds)}"] if bounds else []
    return found + ([] if pool["hosts"] else ["no live host"])


def _remarks(version: dict[str, Any]) -> str:
    words = [word for word in ("pinned", "on_demand") if version[word]]
    words += ["to be woken"] if version["wake_asked_at"] else []
    words += [f"unfit: {version['unfit_reason']}"] if version["unfit_reason"] else []
    return ", ".join(words).replace("on_demand", "on demand")


def _residents(host: dict[str, Any]) -> str:
    return ", ".join(f"{one['version']} {one['state']}" for one in host["residents"]) or "nothing was awake yet"


def _decision(one: dict[str, Any]) -> tuple[str, ...]:
    seconds = "" if one["seconds"] is None else f"{one['seconds']:.1f}"
    unkept = [
        f"{told['version']}: {told['lane']} {told['bound_seconds']:.0f} s can't be kept, about "
        f"{told['expected_seconds']:.0f} s"
        for told in one["unkept"]
    ]
    remarks = [*([one["error"]] if one["error"] else []), *unkept]
    ends = (one["leaves"] or "", one["comes"] or "")
    return utc(one["at"]), *ends, one["why"], one["method"], one["state"], seconds, "; ".join(remarks)
