"""`penstock webhooks`: where events go, and how their deliveries went; over the HTTP API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from penstock.cli.batch_page import local_time
from penstock.cli.client import DEFAULT_DATA, DEFAULT_URL, Data, Url, ask, connected, told
from penstock.cli.printing import Json, say, say_json, show, table
from penstock.stack.problem import Problem

app = typer.Typer(no_args_is_help=True, help="Webhook endpoints, and the deliveries to them.")

EndpointId = Annotated[str, typer.Argument(help="An endpoint's id.", metavar="ENDPOINT_ID")]


@app.command("list")
def list_(as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """List webhook endpoints, newest first."""
    with told(), connected(url, data) as client:
        page = ask(client, "GET", "/webhook_endpoints", params={"limit": 100})
        if as_json:
            say_json(page)
            return
        show(table(("id", "url", "events", "state", "name"), map(_endpoint_row, page["data"])))


def _endpoint_row(one: dict[str, Any]) -> tuple[str, ...]:
    events = " ".join(type.removeprefix("batch.") for type in one["event_types"])
    state = "enabled" if one["enabled"] else f"disabled ({one['disabled_reason'].replace('_', ' ')})"
    return one["id"], one["url"], events, state, one["name"]


@app.command()
def create(
    to: Annotated[str, typer.Argument(help="Where events go.", metavar="URL")],
    name: Annotated[str, typer.Option(help="For people.")] = "",
    event: Annotated[list[str] | None, typer.Option(help="e.g. batch.failed, as often as needed; else all.")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Create a webhook endpoint; prints its id and its secret, which is told only now."""
    with told(), connected(url, data) as client:
        asked = {"url": to, "name": name} | ({"event_types": event} if event else {})
        made = ask(client, "POST", "/webhook_endpoints", json=asked)
        say_json(made) if as_json else say(f"{made['id']} {made['signing_secret']}")


@app.command()
def rotate(
    id: EndpointId,
    now: Annotated[bool, typer.Option("--now", help="End the old secret at once; else both sign for a day.")] = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Give an endpoint a new secret; prints it."""
    with told(), connected(url, data) as client:
        body = {"keep_old_secret_active_for_24_hours": not now}
        one = ask(client, "POST", f"/webhook_endpoints/{id}/rotate", json=body)
        say_json(one) if as_json else say(one["signing_secret"])


@app.command()
def delete(id: EndpointId, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Delete an endpoint; what is pending for it is given up."""
    with told(), connected(url, data) as client:
        gone = ask(client, "DELETE", f"/webhook_endpoints/{id}")
        say_json(gone) if as_json else say(f"{id} deleted")


@app.command()
def enable(id: EndpointId, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Send to an endpoint again that was disabled, e.g. since it answered 410."""
    with told(), connected(url, data) as client:
        one = ask(client, "POST", f"/webhook_endpoints/{id}", json={"enabled": True})
        say_json(one) if as_json else say(f"{id} enabled")


@app.command("test")
def sample(id: EndpointId, as_json: Json = False, url: Url = DEFAULT_URL, data: Data = DEFAULT_DATA) -> None:
    """Send a sample event; prints what the endpoint answered, and exits with 1 unless that is 2xx."""
    with told(), connected(url, data) as client:
        one = ask(client, "POST", f"/webhook_endpoints/{id}/test", json={})
        say_json(one) if as_json else say(f"{id} answered {one['status_code']}")
        if not 200 <= one["status_code"] < 300:
            raise typer.Exit(1)


@app.command()
def deliveries(
    batch: Annotated[str | None, typer.Option(help="Of this batch or job.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="To this endpoint.")] = None,
    status: Annotated[str | None, typer.Option(help="pending, delivered or failed.")] = None,
    limit: Annotated[int, typer.Option(help="The newest so many.", min=1, max=100)] = 20,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """List deliveries, newest first, each with how its last attempt went."""
    asked = {"batch": batch, "endpoint": endpoint, "status": status, "limit": limit}
    with told(), connected(url, data) as client:
        params = {name: value for name, value in asked.items() if value is not None}
        page = ask(client, "GET", "/webhook_deliveries", params=params)
        if as_json:
            say_json(page)
            return
        show(table(("id", "batch", "event", "status", "attempts", "last", "next"), map(_delivery_row, page["data"])))


def _delivery_row(one: dict[str, Any]) -> tuple[str, ...]:
    type, next = one["type"].removeprefix("batch."), local_time(one["next_attempt_at"])
    return one["id"], one["batch_id"], type, one["status"], str(one["attempts"]), _last(one), next


@app.command()
def replay(
    id: Annotated[str | None, typer.Argument(help="One delivery; or say which with the options.")] = None,
    status: Annotated[str | None, typer.Option(help="All that are so: failed or delivered.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Of these, to this endpoint.")] = None,
    batch: Annotated[str | None, typer.Option(help="Of these, of this batch or job.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Of these, made at this time or later.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Of these, made before this time.")] = None,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = DEFAULT_DATA,
) -> None:
    """Send one delivery again, or all that failed (or were delivered) of a range."""
    with told(), connected(url, data) as client:
        if id is not None:
            one = ask(client, "POST", f"/webhook_deliveries/{id}/replay")
            say_json(one) if as_json else say(f"{id} is sent again")
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
        say_json({"count": count}) if as_json else say(f"{count:,} deliveries are sent again")


def _last(one: dict[str, Any]) -> str:
    if not one["log"]:
        return ""
    last = one["log"][-1]
    return f"{last['status_code'] or last['error']}, {last['latency_ms']} ms"
