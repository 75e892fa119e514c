"""`penstock audit`: who did what. It needs the database."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from penstock.cli.client import DEFAULT_DATA, Data, told
from penstock.cli.database import opened
from penstock.cli.printing import Json, say_json, show, table


def audit(
    tenant: Annotated[str | None, typer.Option(help="Only about this tenant's things.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, e.g. api_key.created.")] = None,
    since: Annotated[datetime | None, typer.Option(help="From then on, in UTC: 2026-11-28 or with a time.")] = None,
    after: Annotated[str | None, typer.Option(help="Go on after the row with this id.")] = None,
    limit: Annotated[int, typer.Option(help="Rows at most.", min=1, max=10_000)] = 50,
    as_json: Json = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """List who did what to keys, tenants, webhooks, batches and files, newest first (needs the database)."""
    with told(), opened(data) as db:
        from penstock.service.core import audit as acts

        moment = since and since.replace(tzinfo=UTC)
        found = db.run(acts.page, tenant=tenant, action=action, since=moment, after=after, limit=limit + 1)
        if as_json:
            from penstock.api.schemas import admin_shapes, shapes

            say_json(shapes.page([admin_shapes.audit_row(one) for one in found], limit, admin_shapes.AuditShape))
            return
        heads = ("id", "at (UTC)", "tenant", "actor", "action", "target", "details")
        rows = (
            (f"{acts.PREFIX}{row.id}", f"{row.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}", row.tenant, row.actor.id,
             row.action, row.target, json.dumps(row.details) if row.details else "")
            for row in found[:limit]
        )  # fmt: skip
        show(table(heads, rows))
