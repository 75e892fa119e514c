"""`/v1/admin/tenants`: who there is, and how they share the lanes."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Request
from pydantic import Field

from penstock.api.auth import Acting, Operator
from penstock.api.http import body
from penstock.api.http.body import Asked, Text
from penstock.api.platform import Here
from penstock.api.routes import usage
from penstock.api.routes.usage import AskedUsage, UsagePage
from penstock.api.schemas import admin_shapes
from penstock.api.schemas.admin_shapes import ErasureShape, TenantShape
from penstock.api.schemas.paging import After, Limit
from penstock.api.schemas.shapes import Page, page
from penstock.domain.accounts.tenant import LONGEST_RETENTION_DAYS
from penstock.service.admin import tenants
from penstock.service.control import erasure

router = APIRouter(prefix="/tenants")

MAX_ADMIN_JSON_BYTES: Final = 64 * 1024
Days = Annotated[int | None, Field(ge=1, le=LONGEST_RETENTION_DAYS)]


class CreateTenant(Asked):
    """A new tenant."""

    name: Text = Field(description="1 to 63 of a-z, 0-9, _ and -; it is the tenant's id.")


class ChangeTenant(Asked):
    """What is to change; what is left out stays."""

    weight: float | None = Field(None, description="0.001 to 1000; 2 gets twice the tokens of 1 in a shared lane.")
    cache: bool | None = Field(None, description="Whether its requests use the shared cache unless they say otherwise.")
    batch_retention_days: Days = Field(
        None, description="Days that ended batches and jobs are kept, with their results; null: by the settings."
    )
    file_retention_days: Days = Field(
        None, description="Days that files are kept after the end of what read them; null: by their own expiry."
    )


BODIES: Final = (CreateTenant, ChangeTenant)
RETENTION: Final = {"batch": "batch_retention_days", "file": "file_retention_days"}


@router.get("", summary="List tenants")
async def list_tenants(operator: Operator, here: Here, after: After = None, limit: Limit = 20) -> Page[TenantShape]:
    """All tenants by name."""
    found = await here.db.autocommit(tenants.page, after=after, limit=limit + 1)
    return page([admin_shapes.tenant(one) for one in found], limit, TenantShape)


@router.post("", summary="Create a tenant", openapi_extra=body.documented(CreateTenant))
async def create_tenant(request: Request, operator: Operator, here: Acting) -> TenantShape:
    """Make a tenant without any key. 409 if it is there already."""
    asked = body.check(CreateTenant, body.decode(await body.read(request, MAX_ADMIN_JSON_BYTES)))
    return admin_shapes.tenant(await here.db.run(tenants.create, asked.name))


@router.get("/{tenant_id}", summary="Look at a tenant")
async def get_tenant(tenant_id: str, operator: Operator, here: Here) -> TenantShape:
    """One tenant."""
    return admin_shapes.tenant(await here.db.autocommit(tenants.get, tenant_id))


@router.get("/{tenant_id}/usage", summary="What a tenant used, and its cost")
async def get_tenant_usage(tenant_id: str, operator: Operator, here: Here, asked: AskedUsage) -> UsagePage:
    """The same as `/v1/usage` tells the tenant."""
    await here.db.autocommit(tenants.get, tenant_id)
    return await usage.of_tenant(here, tenant_id, asked)


@router.post("/{tenant_id}", summary="Change a tenant", openapi_extra=body.documented(ChangeTenant))
async def change_tenant(request: Request, tenant_id: str, operator: Operator, here: Acting) -> TenantShape:
    """Change a tenant's weight, its use of the shared cache or how long its things are kept, from now on."""
    asked = body.check(ChangeTenant, body.decode(await body.read(request, MAX_ADMIN_JSON_BYTES)))
    given = asked.model_dump(exclude_unset=True)
    retention = {what: given.pop(name) for what, name in RETENTION.items() if name in given}
    return admin_shapes.tenant(await here.db.run(tenants.change, tenant_id, **given, retention=retention))


@router.delete("/{tenant_id}", summary="Erase a tenant", status_code=202)
async def erase_tenant(tenant_id: str, operator: Operator, here: Acting) -> ErasureShape:
    """Close a tenant and erase all that is its own. The answer comes at once, the keeper does the work.

    Its keys are refused from now on (where many calls come, within seconds). Look at `/v1/admin/erasures/{id}` until
    that is completed; asking again is the same erasure. 400 for the platform's first tenant and for the key's own.
    """
    return admin_shapes.erasure(await here.db.run(erasure.begin, tenant_id, operator))
