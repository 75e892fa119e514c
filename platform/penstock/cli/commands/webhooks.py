"""`penstock webhooks`: where events go, and how their deliveries went; over the HTTP API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, console, json_text, told
from penstock.stack.problem import Problem

app = typer.Typer(no_args_is_help=True, help="Webhook endpoints, and the deliveries to them.")
out = console()

EndpointId = Annotated[str, typer.Argument(help="An endpoint's id.", metavar="ENDPOINT_ID")]


@app.command("list")
def list_(url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """List webhook endpoints, newest first."""
    table = Table("id", "url", "events", "state", "name", box=None, pad_edge=False)
    with told(), connected(url, data) as client:
        for one in ask(client, "GET", "/webhook_endpoints", params={"limit": 100})["data"]:
            events = " ".join(type.removeprefix("batch.") for type in one["event_types"])
            state = "enabled" if one["enabled"] else f"disabled ({one['disabled_reason'].replace('_', ' ')})"
            table.add_row(one["id"], one["url"], events, state, one["name"])
        out.print(table)


@app.command()
def create(
    to: Annotated[str, typer.Argument(help="Where events go.", metavar="URL")],
    name: Annotated[str, typer.Option(help="For people.")] = "",
    event: Annotated[list[str] | None, typer.Option(help="e.g. batch.failed, as often as needed; else all.")] = None,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Create a webhook endpoint; prints its id and its secret, which is told only now."""
    with told(), connected(url, data) as client:
        asked = {"url": to, "name": name} | ({"event_types": event} if event else {})
        made = ask(client, "POST", "/webhook_endpoints", json=asked)
        out.print(f"{made['id']} {made['signing_secret']}", soft_wrap=True)


@app.command()
def rotate(
    id: EndpointId,
    now: Annotated[bool, typer.Option("--now", help="End the old secret at once; else both sign for a day.")] = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Give an endpoint a new secret; prints it."""
    with told(), connected(url, data) as client:
        body = {"keep_old_secret_active_for_24_hours": not now}
        out.print(ask(client, "POST", f"/webhook_endpoints/{id}/rotate", json=body)["signing_secret"], soft_wrap=True)


@app.command()
def delete(id: EndpointId, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Delete an endpoint; what is pending for it is given up."""
    with told(), connected(url, data) as client:
        ask(client, "DELETE", f"/webhook_endpoints/{id}")
        out.print(f"{id} deleted")


@app.command()
def enable(id: EndpointId, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Send to an endpoint again that was disabled, e.g. since it answered 410."""
    with told(), connected(url, data) as client:
        ask(client, "POST", f"/webhook_endpoints/{id}", json={"enabled": True})
        out.print(f"{id} enabled")


@app.command("test")
def sample(id: EndpointId, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Send a sample event; prints what the endpoint answered, and exits with 1 unless that is 2xx."""
    with told(), connected(url, data) as client:
        status = ask(client, "POST", f"/webhook_endpoints/{id}/test", json={})["status_code"]
        out.print(f"{id} answered {status}")
        if not 200 <= status < 300:
            raise typer.Exit(1)


@app.command()
def deliveries(
    batch: Annotated[str | None, typer.Option(help="Of this batch or job.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="To this endpoint.")] = None,
    status: Annotated[str | None, typer.Option(help="pending, delivered or failed.")] = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1, max=100)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="The API's objects, one a line.")] = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """List deliveries, newest first, each with how its last attempt went."""
    table = Table("id", "batch", "event", "status", "attempts", "last", "next", box=None, pad_edge=False)
    asked = {"batch": batch, "endpoint": endpoint, "status": status, "limit": limit}
    with told(), connected(url, data) as client:
        params = {name: value for name, value in asked.items() if value is not None}
        for one in ask(client, "GET", "/webhook_deliveries", params=params)["data"]:
            if as_json:
                out.print(json_text(one), soft_wrap=True)
            type, attempts = one["type"].removeprefix("batch."), str(one["attempts"])
            table.add_row(
                one["id"], one["batch_id"], type, one["status"], attempts, _last(one), _time(one["next_attempt_at"])
            )
        if not as_json:
            out.print(table)


@app.command()
def replay(
    id: Annotated[str | None, typer.Argument(help="One delivery; or say which with the options.")] = None,
    status: Annotated[str | None, typer.Option(help="All that are so: failed or delivered.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Of these, to this endpoint.")] = None,
    batch: Annotated[str | None, typer.Option(help="Of these, of this batch or job.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Of these, made at this time or later.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Of these, made before this time.")] = None,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Send one delivery again, or all that failed (or were delivered) of a range."""
    with told(), connected(url, data) as client:
        if id is not None:
            ask(client, "POST", f"/webhook_deliveries/{id}/replay")
            out.print(f"{id} is sent again")
            return
        if status is None:
            raise Problem("Say which: an id, or --status failed (or delivered).")
        asked = {
            "status": status,
            "endpoint_id": endpoint,
            "batch": batch,
            "created_after": since and int(since.timestamp()),
            "created_before": until and int(until.timestamp()),
        }
        body = {name: value for name, value in asked.items() if value is not None}
        count, more = 0, True
        while more:
            told_back = ask(client, "POST", "/webhook_deliveries/replay", json=body)
            count, more = count + told_back["count"], told_back["has_more"]
        out.print(f"{count:,} deliveries are sent again")


def _last(one: dict[str, Any]) -> str:
    if not one["log"]:
        return ""
    last = one["log"][-1]
    return f"{last['status_code'] or last['error']}, {last['latency_ms']} ms"


def _time(unix: int | None) -> str:
    return "" if unix is None else datetime.fromtimestamp(unix).astimezone().isoformat(" ", "seconds")
