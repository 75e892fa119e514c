"""`penstock tenants`: who shares the lanes, and whose answers are kept. The operator's word: it needs the database."""

from __future__ import annotations

import time
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final

import typer
from rich.table import Table

from penstock.cli.client import DEFAULT_DATA, Data, console, told
from penstock.cli.database import opened
from penstock.domain.accounts.erasure import Erasure
from penstock.service.admin import tenants
from penstock.service.control import erasure
from penstock.service.core.transaction import Database
from penstock.stack.problem import Problem

app = typer.Typer(
    no_args_is_help=True,
    help="List tenants, weigh them, keep their answers, say how long, erase them (needs the database).",
)
out = console()


@app.command("list")
def list_(data: Data = DEFAULT_DATA) -> None:
    """List tenants with their weights. A tenant is made with its first key."""
    table = Table("tenant", "weight", "cache", "batches kept", "files kept", "created", box=None, pad_edge=False)
    with told(), opened(data) as db:
        for tenant in db.run(tenants.page):
            table.add_row(
                tenant.id,
                f"{tenant.weight:g}",
                "on" if tenant.cache else "off",
                _days(tenant.batch_retention_days),
                _days(tenant.file_retention_days),
                tenant.created_at.isoformat(" ", "seconds"),
            )
        out.print(table)


def _days(days: int | None) -> str:
    return "default" if days is None else f"{days} days"


@app.command()
def create(
    tenant: Annotated[str, typer.Argument(help="1 to 63 of a-z, 0-9, _ and -.", metavar="NAME")],
    data: Data = DEFAULT_DATA,
) -> None:
    """Make a tenant without any key."""
    with told(), opened(data) as db:
        out.print(f"{db.run(tenants.create, tenant).id} is a tenant now")


@app.command()
def weight(
    tenant: Annotated[str, typer.Argument(help="Whose.", metavar="NAME")],
    weight: Annotated[float, typer.Argument(help="1 unless told; 2 gets twice the tokens in a shared lane.")],
    data: Data = DEFAULT_DATA,
) -> None:
    """Set a tenant's weight: its share of a lane where several tenants have work."""
    with told(), opened(data) as db:
        db.run(tenants.weigh, tenant, weight)
        out.print(f"{tenant} weighs {weight:g}")


class Switch(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


@app.command()
def cache(
    tenant: Annotated[str, typer.Argument(help="Whose.", metavar="NAME")],
    switch: Annotated[Switch, typer.Argument(help="Whether its requests use it, unless they say otherwise.")],
    data: Data = DEFAULT_DATA,
) -> None:
    """Let a tenant's requests that have one answer take it from the shared cache, and leave it there."""
    with told(), opened(data) as db:
        db.run(tenants.set_cache, tenant, switch is Switch.ON)
        out.print(f"the cache is {switch.value} for {tenant}")


@app.command()
def retention(
    tenant: Annotated[str, typer.Argument(help="Whose.", metavar="NAME")],
    batches: Annotated[str | None, typer.Option(help="Days after their end, or `default`.", metavar="DAYS")] = None,
    files: Annotated[
        str | None, typer.Option(help="Days after the end of the last batch that read them, or `default`.")
    ] = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Set for how many days a tenant's batches and jobs (with their results) and its files are kept."""
    with told(), opened(data) as db:
        given = {what: _read_days(value) for what, value in (("batch", batches), ("file", files)) if value is not None}
        now = db.run(tenants.change, tenant, retention=given)
        out.print(
            f"{tenant}: batches are kept {_days(now.batch_retention_days)}, files {_days(now.file_retention_days)}"
        )


def _read_days(value: str) -> int | None:
    if value == "default":
        return None
    if not value.isascii() or not value.isdigit():
        raise Problem(f"A retention is a number of days, or `default`, not {value!r}.")
    return int(value)


_LOOK_SECONDS: Final = 0.5
_SILENT_SECONDS: Final = 10.0


@app.command()
def erase(
    tenant: Annotated[str, typer.Argument(help="Whose.", metavar="NAME")],
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Erase a tenant: its keys are refused at once, its work is cancelled, and all that is its own is removed.

    A keeper does it and goes on by itself, whatever becomes of this command, which shows how far it is; the same
    command looks again. It can't be undone.
    """
    with told(), opened(data) as db:
        there = db.run(erasure.count, tenant)
        out.print(f"{tenant} has {_counted(there)}")
        if not yes and not typer.confirm(f"Erase {tenant}, for ever?"):
            raise Problem("Nothing is erased.")
        id = db.run(erasure.begin, tenant).id
        out.print(f"{id}: {tenant} is closed")
        done = _watched(db, id)
        out.print(f"{id}: done, {_counted(done.gone)}")


def _watched(db: Database, id: str) -> Erasure:
    """Say how far it is whenever that changes, until it has ended."""
    before, changed_at = db.run(erasure.get, id), time.monotonic()
    while before.ended_at is None:
        time.sleep(_LOOK_SECONDS)
        now = db.run(erasure.get, id)
        if now.gone != before.gone:
            out.print(f"{id}: {_counted(now.gone)}")
            changed_at = time.monotonic()
        elif now.ended_at is None and time.monotonic() - changed_at > _SILENT_SECONDS:
            out.print(f"{id}: it waits for workers that let go, for blobs that were being written, or for a keeper")
            changed_at = float("inf")
        before = now
    return before


def _counted(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {kind.replace('_', ' ')}" for kind, number in numbers.items() if number) or "nothing"
