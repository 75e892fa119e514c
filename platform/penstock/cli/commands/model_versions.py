"""`penstock models versions|alias|promote|demand|rollback|retire|repin|show`: versions, and what names stand for.

They need an operator's key, but for looking.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, check, connected, told
from penstock.cli.engine_option import lacks
from penstock.cli.patient_client import PatientClient, newest
from penstock.cli.printing import Json, say, say_json, table, utc
from penstock.cli.printing import show as print_table
from penstock.domain.models.version import STABLE, number_of
from penstock.stack.problem import Problem

if TYPE_CHECKING:
    import httpx

Version = Annotated[str, typer.Argument(help="A version, e.g. chat@v2.", metavar="NAME@VERSION")]
Alias = Annotated[str, typer.Argument(help="A model, or an alias of it such as chat@canary.", metavar="NAME[@ALIAS]")]

Guard = Annotated[
    bool, typer.Option("--guard", help="Take the newest version's share back if it does worse than the others.")
]


def add_to(app: typer.Typer) -> None:
    """Put the commands into the family."""
    for command in (versions, show, alias, promote, demand, rollback, repin, retire):
        app.command()(command)


def versions(
    name: Annotated[str | None, typer.Argument(help="The model; all unless named.")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """List versions: how far each is, how many live workers serve it, and which aliases stand for it."""
    with told(), connected(url, data) as client:
        found = _every(client, name)
        if as_json:
            say_json({"object": "list", "data": found})
            return
        heads = ("version", "state", "live workers", "aliases", "engine", "source")
        print_table(table(heads, (
            (one["id"], one["state"], str(one["live_workers"]), _shares(one["aliases"]), one["engine"] or "",
             one["source"] or "") for one in found
        )))  # fmt: skip


def show(name: Alias, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Show one version (chat@v2), or a model with its aliases and versions."""
    with told(), connected(url, data) as client:
        if number_of(name.rpartition("@")[2]) is not None:
            one = ask(client, "GET", f"/model_versions/{quote(name)}")
            if as_json:
                say_json(one)
                return
            print_table(table((), _facts(one)))
            _show_tunings([one])
            return
        model = name.rpartition("@")[0] or name
        found = ask(client, "GET", f"/models/{quote(model)}") | {
            "aliases": ask(client, "GET", "/model_aliases", params={"model": model})["data"],
            "versions": _every(client, model),
        }
        if as_json:
            say_json(found)
            return
        say(f"{model}: {found['live_workers']} live workers")
        if found["engines"]:
            print_table(table((), _engines(found)))
        print_table(table(("alias", "stands for", "why"), (_alias_row(one) for one in found["aliases"])))
        print_table(table(("version", "state", "live workers", "aliases"), (
            (one["id"], one["state"], str(one["live_workers"]), _shares(one["aliases"])) for one in found["versions"]
        )))  # fmt: skip
        _show_tunings(found["versions"])


def _show_tunings(versions: list[dict[str, Any]]) -> None:
    """What `penstock tune` measured; only operators are told."""
    tuned = [(one["id"], point) for one in versions for point in one.get("tunings") or ()]
    if tuned:
        heads = ("tuned", "device", "tokens/s", "KV tokens", "load", "wake", "memory", "arguments")
        print_table(table(heads, (_tuning_row(*one) for one in tuned)))


def _tuning_row(version: str, point: dict[str, Any]) -> tuple[str, ...]:
    def told(name: str, how: str, unit: float = 1.0) -> str:
        return "" if point[name] is None else how.format(point[name] / unit)

    arguments = " ".join(point["arguments"]) or "(none)"
    why = f" ({point['trouble']})" if point["trouble"] else " (recommended)" if point["chosen"] else ""
    return (
        version,
        point["device"],
        told("tokens_per_second", "{:,.0f}"),
        told("kv_tokens", "{:,.0f}"),
        told("load_seconds", "{:.1f} s"),
        told("wake_seconds", "{:.2f} s"),
        told("memory_bytes", "{:.2f} GiB", 1024**3),
        arguments + why,
    )


def _engines(model: dict[str, Any]) -> list[tuple[str, str]]:
    return [("engines", ", ".join(model["engines"])), *lacks(model["lacks"])]


def alias(
    name: Alias,
    weights: Annotated[
        list[str] | None, typer.Argument(help="What it stands for from now on, in percent.", metavar="VERSION=PERCENT")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Let it stand for nothing; not for stable.")] = False,
    guard: Guard = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Change what an alias stands for, a new one too; without weights, its history.

    A single version needs no percent. In force for calls within two seconds; planned batches keep their versions.
    """
    with told(), connected(url, data) as client:
        model, _, wanted = name.rpartition("@") if "@" in name else (name, "", STABLE)
        id = quote(f"{model}@{wanted}")
        if remove:
            check(client.request("DELETE", f"/model_aliases/{id}"))
            say(f"{model}@{wanted} stands for nothing")
            return
        if weights:
            body = {"model": model, "alias": wanted, "weights": _weights(weights)}
            one = ask(client, "POST", "/model_aliases", json=body | _guard(guard))
            say_json(one) if as_json else say(_said(one))
            return
        found = ask(client, "GET", f"/model_aliases/{id}/history")
        if as_json:
            say_json(found)
            return
        print_table(table(("since (UTC)", "stands for", "why", "by"), (
            (utc(one["changed_at"]), _split(one["weights"]), one["reason"], one["changed_by"] or "")
            for one in found["data"]
        )))  # fmt: skip


def promote(
    version: Version,
    weight: Annotated[int, typer.Option(help="Its share in percent; the rest stays.", min=1, max=100)] = 100,
    alias: Annotated[str, typer.Option(help="Of this alias.")] = STABLE,
    guard: Guard = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Give a version all of an alias, or a share: a canary is `penstock models promote chat@v2 --weight 10`."""
    model, _, label = version.rpartition("@")
    with told(), connected(url, data) as client:
        body = {"version": label, "weight": weight} | _guard(guard)
        one = ask(client, "POST", f"/model_aliases/{quote(f'{model}@{alias}')}/promote", json=body)
        say_json(one) if as_json else say(_said(one))


def demand(
    name: Alias,
    eval: Annotated[str | None, typer.Option(help="An eval's id.", metavar="EVAL")] = None,
    scorer: Annotated[str | None, typer.Option(help="One of its scorers.")] = None,
    at_least: Annotated[
        float | None, typer.Option(help="What a run must show: the lower end of its interval.", min=0, max=1)
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="Demand nothing any more.")] = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Let an alias (stable unless named) give a larger share only to versions that a run of an eval has proven.

    Rollbacks, and what a guard takes back, ask for nothing.
    """
    asked = {"eval_id": eval, "scorer": scorer, "at_least": at_least}
    if none == any(value is not None for value in asked.values()) or (not none and None in asked.values()):
        raise typer.BadParameter("say --eval, --scorer and --at-least, or --none alone.")
    with told(), connected(url, data) as client:
        path = f"/model_aliases/{quote(name if '@' in name else f'{name}@{STABLE}')}/demand"
        one = ask(client, "DELETE", path) if none else ask(client, "POST", path, json=asked)
        say_json(one) if as_json else say(f"{one['id']} {one['reason']}")


def rollback(name: Alias, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Let an alias (stable unless named) stand for what it stood for before its last change.

    Calls go there within two seconds; batches that are planned keep their versions, unless `repin` moves them.
    """
    with told(), connected(url, data) as client:
        id = name if "@" in name else f"{name}@{STABLE}"
        one = ask(client, "POST", f"/model_aliases/{quote(id)}/rollback")
        say_json(one) if as_json else say(_said(one))


def repin(
    version: Version,
    to: Annotated[str | None, typer.Option(help="An alias or version; what the model stands for unless named.")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Give unstarted work of open batches, which is pinned to a version, to another one; what has begun stays."""
    with told(), connected(url, data) as client:
        body = {"to": to or version.rpartition("@")[0]}
        done = ask(client, "POST", f"/model_versions/{quote(version)}/repin", json=body)
        words = f"{version}: {done['slices']} slices of {done['batches']} batches go to {body['to']}"
        say_json(done) if as_json else say(words)


def retire(
    version: Version,
    remove_weights: Annotated[
        bool, typer.Option("--remove-weights", help="Delete what was downloaded for it on this machine.")
    ] = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Let nobody ask a version any more; refused while an alias stands for it, or open work is pinned to it."""
    with told(), connected(url, data) as client:
        one = ask(client, "POST", f"/model_versions/{quote(version)}/retire")
        say_json(one) if as_json else say(f"{version} is retired")
        if remove_weights:
            from penstock.model_source.no_model import NoModel
            from penstock.model_source.removal import remove

            others = [other["source"] for other in _every(client, None) if other["state"] != "retired"]
            try:
                freed = remove(one["source"], others)
            except NoModel as error:
                raise Problem(str(error)) from None
            if not as_json:
                say(f"{one['source']}: {freed / 1e6:,.0f} MB are deleted here")


def _every(client: httpx.Client, model: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = newest(PatientClient(client), "/model_versions", sys.maxsize, model=model)["data"]
    return found


def _weights(given: list[str]) -> dict[str, int]:
    """`v1=90 v2=10`, or `v2` alone; raise Problem."""
    made = {}
    for one in given:
        version, equals, percent = one.partition("=")
        if number_of(version) is None or (equals and not percent.isdecimal()) or (not equals and len(given) > 1):
            raise Problem(f"{one!r} is no share of a version: v1=90 v2=10, say.")
        made[version] = int(percent) if equals else 100
    return made


def _guard(wanted: bool) -> dict[str, Any]:
    return {"guard": {}} if wanted else {}


def _said(one: dict[str, Any]) -> str:
    return f"{one['id']} stands for {_split(one['weights'])}"


def _split(weights: dict[str, int]) -> str:
    if len(weights) == 1:
        return next(iter(weights))
    return ", ".join(f"{version} {percent} %" for version, percent in weights.items()) or "nothing"


def _shares(aliases: dict[str, int]) -> str:
    return ", ".join(alias if percent == 100 else f"{alias} {percent} %" for alias, percent in aliases.items())


def _alias_row(one: dict[str, Any]) -> tuple[str, str, str]:
    return one["alias"], _split(one["weights"]), one["reason"]


def _facts(one: dict[str, Any]) -> list[tuple[str, str]]:
    facts = {
        "version": one["id"],
        "state": one["state"],
        "live workers": str(one["live_workers"]),
        "aliases": _shares(one["aliases"]),
        "base": one["base"],
        "source": one["source"],
        "engine": one["engine"],
        "arguments": " ".join(one["arguments"] or ()),
        "digest": one["digest"],
        "made": f"{utc(one['created_at'])} UTC by {'its first worker' if one['registered'] else 'an operator'}",
    }
    return [(name, value) for name, value in facts.items() if value]
