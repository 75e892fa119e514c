"""`/v1/admin/audit`: who did what, for as long as it is kept."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query

from penstock.api.auth import Operator
from penstock.api.http.body import Asked
from penstock.api.platform import Here
from penstock.api.schemas import admin_shapes
from penstock.api.schemas.admin_shapes import AuditShape
from penstock.api.schemas.paging import After, Limit
from penstock.api.schemas.shapes import Page, page
from penstock.service.core import audit

router = APIRouter(prefix="/audit")

_LATEST: Final = 4_102_444_800
"""The year 2100."""
BODIES: Final[tuple[type[Asked], ...]] = ()


@router.get("", summary="List what was done")
async def list_audit(
    operator: Operator,
    here: Here,
    tenant: Annotated[str | None, Query(description="Only about this tenant's things.", max_length=100)] = None,
    action: Annotated[str | None, Query(description="Only this, e.g. `api_key.created`.", max_length=100)] = None,
    since: Annotated[int | None, Query(description="Unix seconds.", ge=0, le=_LATEST)] = None,
    after: After = None,
    limit: Limit = 20,
) -> Page[AuditShape]:
    """Acts of keys and of the command line, newest first: keys, tenants, webhooks, cancels, deletions, steering."""
    moment = None if since is None else datetime.fromtimestamp(since, UTC)
    found = await here.db.autocommit(
        audit.page, tenant=tenant, action=action, since=moment, after=after, limit=limit + 1
    )
    return page([admin_shapes.audit_row(one) for one in found], limit, AuditShape)
