"""`penstock keys`: who may call. It needs the database, not the API: an API key can't make others."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from penstock.cli.client import DEFAULT_DATA, Data, console, told
from penstock.cli.database import opened
from penstock.service.admin import keys

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys (needs the database).")
out = console()
err = console(stderr=True)

Tenant = Annotated[str, typer.Option(help="Whose keys.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    tenant: Tenant = keys.BOOTSTRAP_TENANT,
    data: Data = DEFAULT_DATA,
) -> None:
    """Make a key for a tenant, and the tenant if it is new; the key is printed once and kept nowhere."""
    with told(), opened(data) as db:
        id, key = db.run(keys.create, tenant, name)
        err.print(f"{id}, for the tenant {tenant}; this is the only time it is shown:")
        out.print(key, soft_wrap=True)


@app.command("list")
def list_(tenant: Tenant = keys.BOOTSTRAP_TENANT, data: Data = DEFAULT_DATA) -> None:
    """List a tenant's keys, oldest first."""
    table = Table("id", "name", "ends in", "created", "revoked", box=None, pad_edge=False)
    with told(), opened(data) as db:
        for key in db.run(keys.page, tenant):
            revoked = key.revoked_at.isoformat(" ", "seconds") if key.revoked_at else ""
            table.add_row(key.id, key.name, f"…{key.tail}", key.created_at.isoformat(" ", "seconds"), revoked)
        out.print(table)


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
