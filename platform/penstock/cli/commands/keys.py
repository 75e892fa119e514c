"""`penstock keys`: who may call. It needs the database, not the API; over that, an operator's key does the same."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated

import typer
from rich.table import Table

from penstock.cli.client import DEFAULT_DATA, Data, console, told
from penstock.cli.database import opened
from penstock.domain.accounts.access import ALL, Role, read_scopes
from penstock.service.admin import keys
from penstock.stack.problem import Problem

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys (needs the database).")
out = console()
err = console(stderr=True)

Tenant = Annotated[str, typer.Option(help="Whose keys.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    tenant: Tenant = keys.BOOTSTRAP_TENANT,
    viewer: Annotated[bool, typer.Option("--viewer", help="It may only read.")] = False,
    operator: Annotated[bool, typer.Option("--operator", help="It may also manage all tenants and keys.")] = False,
    scope: Annotated[
        list[str] | None, typer.Option(help="files, batches, inference or webhooks; repeatable. All unless told.")
    ] = None,
    expires_in: Annotated[str | None, typer.Option(help="Its life, as 12h, 30d or 52w; for ever unless told.")] = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Make a key for a tenant, and the tenant if it is new; the key is printed once and kept nowhere."""
    with told(), opened(data) as db:
        if viewer and operator:
            raise Problem("A key is a viewer's or an operator's, not both.")
        role = Role.VIEWER if viewer else Role.OPERATOR if operator else Role.TENANT
        id, key = db.run(keys.create, tenant, name, role, read_scopes(scope or ()), _life(expires_in))
        err.print(f"{id}, for the tenant {tenant}; this is the only time it is shown:")
        out.print(key, soft_wrap=True)


@app.command("list")
def list_(tenant: Tenant = keys.BOOTSTRAP_TENANT, data: Data = DEFAULT_DATA) -> None:
    """List a tenant's keys, oldest first."""
    table = Table("id", "name", "ends in", "role", "scopes", "created", "expires", "revoked", box=None, pad_edge=False)
    with told(), opened(data) as db:
        for key in db.run(keys.page, tenant):
            times = [_told(at) for at in (key.created_at, key.expires_at, key.revoked_at)]
            scopes = "all" if key.scopes == ALL else " ".join(sorted(key.scopes))
            table.add_row(key.id, key.name, f"…{key.tail}", key.role, scopes, *times)
        out.print(table)


def _told(at: datetime | None) -> str:
    return at.isoformat(" ", "seconds") if at else ""


def _life(text: str | None) -> timedelta | None:
    if text is None:
        return None
    if not (found := re.fullmatch(r"([0-9]{1,6})([hdw])", text)):
        raise Problem(f"--expires-in is a number with h, d or w, as 30d, not {text!r}.")
    return int(found[1]) * {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}[found[2]]


@app.command()
def revoke(
    id: Annotated[str, typer.Argument(help="The key's id, from the list.", metavar="ID")],
    tenant: Tenant = keys.BOOTSTRAP_TENANT,
    data: Data = DEFAULT_DATA,
) -> None:
    """Make a key invalid from now on."""
    with told(), opened(data) as db:
        db.run(keys.revoke, tenant, id)
        out.print(f"{id} is revoked")
