"""`penstock keys`: who may call. It needs the database, not the API; over that, an operator's key does the same."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated

import typer

from penstock.cli.client import DEFAULT_DATA, Data, told
from penstock.cli.database import opened
from penstock.cli.printing import Json, listed, remark, say, say_json, show, table
from penstock.domain.accounts.access import ALL, Role, read_scopes
from penstock.domain.accounts.tenant import BOOTSTRAP_TENANT
from penstock.stack.problem import Problem

app = typer.Typer(no_args_is_help=True, help="Make, list, rotate and revoke API keys (needs the database).")

Tenant = Annotated[str, typer.Option(help="Whose keys.")]
Id = Annotated[str, typer.Argument(help="The key's id, from the list.", metavar="ID")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    tenant: Tenant = BOOTSTRAP_TENANT,
    viewer: Annotated[bool, typer.Option("--viewer", help="It may only read.")] = False,
    operator: Annotated[bool, typer.Option("--operator", help="It may also manage all tenants and keys.")] = False,
    scope: Annotated[
        list[str] | None, typer.Option(help="files, batches, inference or webhooks; repeatable. All unless told.")
    ] = None,
    models: Annotated[
        list[str] | None, typer.Option("--models", "--model", help="What it may ask; repeatable. All unless told.")
    ] = None,
    expires_in: Annotated[str | None, typer.Option(help="Its life, as 12h, 30d or 52w; for ever unless told.")] = None,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Make a key for a tenant, and the tenant if it is new; the key is printed once and kept nowhere."""
    with told(), opened(data) as db:
        from penstock.service.admin import keys

        if viewer and operator:
            raise Problem("A key is a viewer's or an operator's, not both.")
        role = Role.VIEWER if viewer else Role.OPERATOR if operator else Role.TENANT
        allowed = frozenset(models) if models else None
        life = None if expires_in is None else _time(expires_in, "--expires-in")
        id, key = db.run(keys.create, tenant, name, role, read_scopes(scope or ()), life, allowed)
        if as_json:
            from penstock.api.schemas import admin_shapes

            say_json(admin_shapes.api_key_with_value(db.run(keys.get, id), key))
            return
        remark(f"{id}, for the tenant {tenant}; this is the only time it is shown:")
        say(key)


@app.command("list")
def list_(tenant: Tenant = BOOTSTRAP_TENANT, as_json: Json = False, data: Data = DEFAULT_DATA) -> None:
    """List a tenant's keys, oldest first."""
    with told(), opened(data) as db:
        from penstock.service.admin import keys

        found = db.run(keys.page, tenant)
        if as_json:
            from penstock.api.schemas import admin_shapes

            say_json(listed(map(admin_shapes.api_key, found)))
            return
        rows = []
        for key in found:
            times = [_told(at) for at in (key.created_at, key.last_used_at, key.expires_at, key.revoked_at)]
            scopes = "all" if key.scopes == ALL else " ".join(sorted(key.scopes))
            allowed = "all" if key.models is None else " ".join(sorted(key.models))
            rows.append((key.id, key.name, f"…{key.tail}", key.role, scopes, allowed, *times))
        show(
            table(("id", "name", "ends in", "role", "scopes", "models", "created", "used", "expires", "revoked"), rows)
        )


def _told(at: datetime | None) -> str:
    return at.isoformat(" ", "seconds") if at else ""


def _time(text: str, option: str) -> timedelta:
    if text == "0":
        return timedelta(0)
    if not (found := re.fullmatch(r"([0-9]{1,6})([hdw])", text)):
        raise Problem(f"{option} is a number with h, d or w, as 30d, not {text!r}.")
    return int(found[1]) * {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}[found[2]]


@app.command()
def rotate(
    id: Id,
    overlap: Annotated[str, typer.Option(help="So long the old key stays valid, as 24h or 7d; 0: not at all.")] = "24h",
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Make a key with the same rights and the same end, printed once; the old one ends after the overlap."""
    with told(), opened(data) as db:
        from penstock.service.admin import keys

        new, key = db.run(keys.rotate, id, _time(overlap, "--overlap"))
        if as_json:
            from penstock.api.schemas import admin_shapes

            say_json(admin_shapes.api_key_with_value(db.run(keys.get, new), key))
            return
        remark(f"{new} replaces {id}; this is the only time it is shown:")
        say(key)


@app.command()
def revoke(id: Id, tenant: Tenant = BOOTSTRAP_TENANT, as_json: Json = False, data: Data = DEFAULT_DATA) -> None:
    """Make a key invalid from now on."""
    with told(), opened(data) as db:
        from penstock.service.admin import keys

        db.run(keys.revoke, tenant, id)
        if as_json:
            from penstock.api.schemas import admin_shapes

            say_json(admin_shapes.DeletedApiKey(id=id))
            return
        say(f"{id} is revoked")
