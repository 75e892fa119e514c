"""`penstock ensembles`: models that are made of several. It needs an operator's key."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, told
from penstock.cli.ensemble_page import asked, decides, definition, members, print_ensemble, rules
from penstock.cli.printing import Json, listed, say, say_json, table, utc
from penstock.cli.printing import show as print_table
from penstock.stack.problem import Problem

if TYPE_CHECKING:
    from penstock.domain.ensembles.ensemble import EnsembleDefinition
    from penstock.service.ensembles.routing import Router

app = typer.Typer(
    no_args_is_help=True,
    help="Ensembles, models that are made of several: add, look, try where requests go (needs an operator's key).",
)

Name = Annotated[str, typer.Argument(help="The ensemble.")]
Version = Annotated[int | None, typer.Option(help="An earlier version, by its number.", min=1)]


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="A definition in YAML or JSON (docs/ensembles.md).")],
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Add an ensemble, or the next version of one that is there; batches that are planned keep theirs."""
    with told(), connected(url, data) as client:
        one = ask(client, "POST", "/ensembles", content=_definition(file))
        say_json(one) if as_json else say(f"{one['id']} is {one['version']}, of {members(one)}")


@app.command("list")
def list_(as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """List ensembles, each in the version that counts now."""
    with told(), connected(url, data) as client:
        found = ask(client, "GET", "/ensembles")
        if as_json:
            say_json(found)
            return
        rows = ((one["id"], one["version"], one["kind"], members(one), utc(one["created_at"])) for one in found["data"])
        print_table(table(("ensemble", "version", "kind", "members", "since (UTC)"), rows))


@app.command()
def show(
    name: Name, version: Version = None, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA
) -> None:
    """Show an ensemble: its rules, what went to each of its members, and how often one was not enough."""
    with told(), connected(url, data) as client:
        one = _get(client, name, version)
        if as_json:
            say_json(one)
            return
        say(f"{one['id']} {one['version']}: {one['kind']}, since {utc(one['created_at'])} UTC")
        print_ensemble(one)


@app.command("try")
def try_(
    name: Name,
    what: Annotated[str, typer.Argument(help="A text, or a JSONL file of requests.", metavar="TEXT_OR_FILE")],
    version: Version = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Say to which members requests would go, and by which rule; nothing is asked of any model.

    Of a kind that asks several members: whom, when, and what decides; that is the same for every request.
    Tokens are estimated with the PENSTOCK_BYTES_PER_TOKEN of this machine.
    """
    with told(), connected(url, data) as client:
        one = _get(client, name, version)
    with told():
        found = list(_tried(one, what))
        if as_json:
            say_json(listed(found))
            return
        if definition(one).kind.gathers:
            _print_asked(one, len(found))
            return
        by = Counter((request["rule"], request["use"]) for request in found if request["use"])
        labels = {place: when for place, when, _ in rules(one)}
        rows = [(use, f"{by[rule, use]:,}", str(rule), labels[str(rule)]) for rule, use in sorted(by)]
        for by_label in Counter(tuple(request["by_label"].items()) for request in found if not request["use"]).items():
            rows.append(_by_label(*by_label))
        print_table(table(("member", "requests", "rule", "when"), rows))


@app.command()
def remove(name: Name, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Let its name stand for nothing: requests that name it are refused, and what is planned goes on."""
    with told(), connected(url, data) as client:
        done = ask(client, "DELETE", f"/ensembles/{quote(name)}")
        say_json(done) if as_json else say(f"{name} stands for nothing")


def _get(client: Any, name: str, version: int | None) -> dict[str, Any]:
    params = {} if version is None else {"version": version}
    found: dict[str, Any] = ask(client, "GET", f"/ensembles/{quote(name)}", params=params)
    return found


def _definition(file: Path) -> bytes:
    """The definition as JSON; raise Problem for what is neither YAML nor JSON."""
    import yaml

    from penstock.cli.yaml_once import DoubledKey, load

    try:
        return json.dumps(load(file.read_bytes()), allow_nan=False).encode()
    except DoubledKey as error:
        raise Problem(f"{file}, line {error.line}: the key {error.key!r} is there twice.") from None
    except OSError as error:
        raise Problem(f"{file} can't be read: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        at = f", line {where.line + 1}" if where else ""
        raise Problem(f"{file} is no YAML or JSON{at}: {getattr(error, 'problem', None) or error}.") from None


def _print_asked(one: dict[str, Any], requests: int) -> None:
    found = definition(one)
    rows = ((member["member"], member["when"]) for member in asked(found))
    print_table(table(("member", "is asked"), rows))
    say(f"the answer is {decides(found)}")
    most = f"{requests * len(found.members):,}"
    judged = f", of the judge {requests:,} at most" if found.judge else ""
    say(f"requests: {requests:,}; of members {most if not found.kind.in_turn else f'{requests:,} to {most}'}{judged}")


def _by_label(uses: tuple[tuple[str, str], ...], requests: int) -> tuple[str, str, str, str]:
    said = "; ".join(f"{label}: {use}" for label, use in uses)
    return "by its label", f"{requests:,}", "", f"the classifier says {said}"


def _tried(one: dict[str, Any], what: str) -> Iterator[dict[str, Any]]:
    """Where each request goes, or whom it is asked; raise Problem for what is none."""
    from datetime import UTC, datetime

    from penstock.domain.ensembles.ensemble import Ensemble
    from penstock.service.ensembles.routing import Router, Unroutable
    from penstock.settings import load

    found = definition(one)
    ensemble = Ensemble(0, int(one["version"][1:]), found, datetime.now(UTC), "")
    router = Router(load().bytes_per_token)
    for place, endpoint, body, custom_id in _requests(what):
        request = {"line": place, "custom_id": custom_id}
        try:
            routed = router.routed(ensemble, endpoint, body)
        except Unroutable as error:
            raise Problem(f"Request {place}: {error.message}") from None
        if found.kind.gathers:
            yield request | {"asks": asked(found), "decides": decides(found)}
        elif routed.rule is not None:
            yield request | {"use": routed.chosen.model, "rule": routed.rule + 1}
        else:
            yield request | {"use": None, "rule": None, "by_label": _uses(router, found, body, place)}


def _uses(router: Router, found: EnsembleDefinition, body: bytes, place: int) -> dict[str, str]:
    """Which member each label of the classifier leads a request to, and none of them."""
    from penstock.service.ensembles.routing import Unroutable

    assert found.classifier is not None, "only that needs a label"
    each = {one: one for one in found.classifier.labels}
    try:
        ways: list[tuple[str, str | None]] = [*each.items(), ("else", None)]
        return {said: found.rules[router.labelled(found, body, label)].use for said, label in ways}
    except Unroutable as error:
        raise Problem(f"Request {place}: {error.message}") from None


def _requests(what: str) -> Iterator[tuple[int, str, bytes, str | None]]:
    """Number, endpoint, body and custom_id of each: of a file's lines, or of a text as a message."""
    import msgspec

    from penstock.domain.inference_endpoints import CALLED, named

    chat = "/v1/chat/completions"
    try:
        lines = Path(what).read_bytes().splitlines() if Path(what).is_file() else None
    except (OSError, ValueError):  # a text that is too long for a name, say
        lines = None
    if lines is None:
        yield 1, chat, msgspec.json.encode({"messages": [{"role": "user", "content": what}]}), None
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            request = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
            url, custom_id = (msgspec.json.decode(request.get(one, b"null")) for one in ("url", "custom_id"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Problem(f"{what}, line {number}: it is no JSON object.") from None
        endpoint = named(url) if isinstance(url, str) else chat
        body = bytes(request.get("body", line))  # as it was written: its bytes are counted
        yield number, endpoint if endpoint in CALLED else chat, body, custom_id
