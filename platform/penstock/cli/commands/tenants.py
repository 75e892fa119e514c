"""`penstock tenants`: who shares the lanes, and whose answers are kept. The operator's word: it needs the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from penstock.cli.client import DEFAULT_DATA, Data, told
from penstock.cli.database import opened
from penstock.cli.printing import Json, listed, remark, say, say_json, show, table
from penstock.domain.accounts.erasure import Erasure
from penstock.stack.problem import Problem

if TYPE_CHECKING:
    from penstock.service.core.transaction import Database

app = typer.Typer(
    no_args_is_help=True,
    help="List tenants, weigh them, keep their answers, say how long, erase them (needs the database).",
)

Name = Annotated[str, typer.Argument(help="Whose.", metavar="NAME")]


@app.command("list")
def list_(as_json: Json = False, data: Data = DEFAULT_DATA) -> None:
    """List tenants with their weights. A tenant is made with its first key."""
    with told(), opened(data) as db:
        from penstock.service.admin import tenants

        found = db.run(tenants.page)
        if as_json:
            from penstock.api.schemas import admin_shapes

            say_json(listed(map(admin_shapes.tenant, found)))
            return
        rows = (
            (one.id, f"{one.weight:g}", "on" if one.cache else "off", _days(one.batch_retention_days),
             _days(one.file_retention_days), one.created_at.isoformat(" ", "seconds"))
            for one in found
        )  # fmt: skip
        show(table(("tenant", "weight", "cache", "batches kept", "files kept", "created"), rows))


def _days(days: int | None) -> str:
    return "default" if days is None else f"{days} days"


@app.command()
def create(
    tenant: Annotated[str, typer.Argument(help="1 to 63 of a-z, 0-9, _ and -.", metavar="NAME")],
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Make a tenant without any key."""
    with told(), opened(data) as db:
        from penstock.service.admin import tenants

        db.run(tenants.create, tenant)
        say_json(_shape(db, tenant)) if as_json else say(f"{tenant} is a tenant now")


def _shape(db: Database, tenant: str) -> Any:
    """What `GET /v1/admin/tenants/{id}` says."""
    from penstock.api.schemas import admin_shapes
    from penstock.service.admin import tenants

    return admin_shapes.tenant(db.run(tenants.get, tenant))


@app.command()
def weight(
    tenant: Name,
    weight: Annotated[float, typer.Argument(help="1 unless told; 2 gets twice the tokens in a shared lane.")],
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Set a tenant's weight: its share of a lane where several tenants have work."""
    with told(), opened(data) as db:
        from penstock.service.admin import tenants

        db.run(tenants.weigh, tenant, weight)
        say_json(_shape(db, tenant)) if as_json else say(f"{tenant} weighs {weight:g}")


class Switch(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


@app.command()
def cache(
    tenant: Name,
    switch: Annotated[Switch, typer.Argument(help="Whether its requests use it, unless they say otherwise.")],
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Let a tenant's requests that have one answer take it from the shared cache, and leave it there."""
    with told(), opened(data) as db:
        from penstock.service.admin import tenants

        db.run(tenants.set_cache, tenant, switch is Switch.ON)
        say_json(_shape(db, tenant)) if as_json else say(f"the cache is {switch.value} for {tenant}")


@app.command()
def retention(
    tenant: Name,
    batches: Annotated[str | None, typer.Option(help="Days after their end, or `default`.", metavar="DAYS")] = None,
    files: Annotated[
        str | None, typer.Option(help="Days after the end of the last batch that read them, or `default`.")
    ] = None,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Set for how many days a tenant's batches and jobs (with their results) and its files are kept."""
    with told(), opened(data) as db:
        from penstock.service.admin import tenants

        given = {what: _read_days(value) for what, value in (("batch", batches), ("file", files)) if value is not None}
        now = db.run(tenants.change, tenant, retention=given)
        kept = f"batches are kept {_days(now.batch_retention_days)}, files {_days(now.file_retention_days)}"
        say_json(_shape(db, tenant)) if as_json else say(f"{tenant}: {kept}")


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
    tenant: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Erase a tenant: its keys are refused at once, its work is cancelled, and all that is its own is removed.

    A keeper does it and goes on by itself, whatever becomes of this command, which shows how far it is; the same
    command looks again. It can't be undone.
    """
    with told(), opened(data) as db:
        from penstock.service.control import erasure

        word = remark if as_json else say
        word(f"{tenant} has {_counted(db.run(erasure.count, tenant))}")
        if not yes and not typer.confirm(f"Erase {tenant}, for ever?", err=as_json):
            raise Problem("Nothing is erased.")
        id = db.run(erasure.begin, tenant).id
        word(f"{id}: {tenant} is closed")
        done = _watched(db, id, word)
        if as_json:
            from penstock.api.schemas import admin_shapes

            say_json(admin_shapes.erasure(done))
            return
        say(f"{id}: done, {_counted(done.gone)}")


def _watched(db: Database, id: str, word: Callable[[str], None]) -> Erasure:
    """Say how far it is whenever that changes, until it has ended."""
    from penstock.service.control import erasure

    before, changed_at = db.run(erasure.get, id), time.monotonic()
    while before.ended_at is None:
        time.sleep(_LOOK_SECONDS)
        now = db.run(erasure.get, id)
        if now.gone != before.gone:
            word(f"{id}: {_counted(now.gone)}")
            changed_at = time.monotonic()
        elif now.ended_at is None and time.monotonic() - changed_at > _SILENT_SECONDS:
            word(f"{id}: it waits for workers that let go, for blobs that were being written, or for a keeper")
            changed_at = float("inf")
        before = now
    return before


def _counted(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {kind.replace('_', ' ')}" for kind, number in numbers.items() if number) or "nothing"
