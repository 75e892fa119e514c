"""`penstock tenants`: who shares the lanes, and how. It needs the database: it is the operator's word."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from penstock.cli.client import DEFAULT_DATA, Data, console, told
from penstock.cli.database import opened
from penstock.service import tenants

app = typer.Typer(no_args_is_help=True, help="List tenants, and weigh them (needs the database).")
out = console()


@app.command("list")
def list_(data: Data = DEFAULT_DATA) -> None:
    """List tenants with their weights. A tenant is made with its first key."""
    table = Table("tenant", "weight", "created", box=None, pad_edge=False)
    with told(), opened(data) as db:
        for tenant in db.run(tenants.page):
            table.add_row(tenant.id, f"{tenant.weight:g}", tenant.created_at.isoformat(" ", "seconds"))
        out.print(table)


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
