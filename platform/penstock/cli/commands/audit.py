"""`penstock audit`: who did what. It needs the database."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from penstock.cli.client import DEFAULT_DATA, Data, console, told
from penstock.cli.database import opened
from penstock.service.core import audit as acts

out = console()


def audit(
    tenant: Annotated[str | None, typer.Option(help="Only about this tenant's things.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, e.g. api_key.created.")] = None,
    since: Annotated[datetime | None, typer.Option(help="From then on, in UTC: 2026-11-28 or with a time.")] = None,
    after: Annotated[str | None, typer.Option(help="Go on after the row with this id.")] = None,
    limit: Annotated[int, typer.Option(help="Rows at most.", min=1, max=10_000)] = 50,
    data: Data = DEFAULT_DATA,
) -> None:
    """List who did what to keys, tenants, webhooks, batches and files, newest first (needs the database)."""
    table = Table("id", "at (UTC)", "tenant", "actor", "action", "target", "details", box=None, pad_edge=False)
    moment = since and since.replace(tzinfo=UTC)
    with told(), opened(data) as db:
        found = db.run(acts.page, tenant=tenant, action=action, since=moment, after=after, limit=limit)
        for row in found:
            at = f"{row.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
            details = json.dumps(row.details) if row.details else ""
            table.add_row(f"{acts.PREFIX}{row.id}", at, row.tenant, row.actor.id, row.action, row.target, details)
        out.print(table)
