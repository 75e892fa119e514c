"""`/v1/admin/api_keys`: keys of all tenants, as OpenAI's organization API has admin keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from pydantic import Field

from penstock.api.auth import Acting, Operator
from penstock.api.http import body
from penstock.api.http.body import Asked, Text
from penstock.api.platform import Here
from penstock.api.routes.admin.tenants import MAX_ADMIN_JSON_BYTES
from penstock.api.schemas import admin_shapes
from penstock.api.schemas.admin_shapes import ApiKeyShape, ApiKeyWithValue, DeletedApiKey, RoleName, ScopeName
from penstock.api.schemas.paging import After, Limit
from penstock.api.schemas.shapes import Page, page
from penstock.domain.accounts.access import Role, read_scopes
from penstock.service.admin import keys

router = APIRouter(prefix="/api_keys")

_MOST_SECONDS: Final = 3_653 * 86_400


class CreateApiKey(Asked):
    """A new key. It can't have more than the key that makes it: no higher role, no other scope, no longer life."""

    name: Text = Field(description="What it is for.")
    tenant: Text = Field(description="Whose key it is; a tenant that is not there is made.")
    role: RoleName = Field("tenant", description="`viewer` only reads, `operator` also manages tenants and keys.")
    scopes: list[ScopeName] | None = Field(None, description="All unless told.", min_length=1)
    models: list[Text] | None = Field(None, description="What it may ask; every model unless told.", min_length=1)
    expires_in_seconds: Annotated[int, Field(ge=1, le=_MOST_SECONDS)] | None = Field(
        None, description="Its life, ten years at most; until it is revoked unless told."
    )


class RotateApiKey(Asked):
    """How to rotate."""

    overlap_seconds: Annotated[int, Field(ge=0, le=30 * 86_400)] = Field(
        86_400, description="So long the old key stays valid, unless it ends sooner; 0: it ends at once."
    )


BODIES: Final = (CreateApiKey, RotateApiKey)


@router.get("", summary="List API keys")
async def list_api_keys(
    operator: Operator,
    here: Here,
    tenant: Annotated[str | None, Query(description="Only this tenant's.", max_length=100)] = None,
    after: After = None,
    limit: Limit = 20,
) -> Page[ApiKeyShape]:
    """All keys, oldest first, those that are revoked or expired among them."""
    found = await here.db.autocommit(keys.page, tenant, after=after, limit=limit + 1)
    return page([admin_shapes.api_key(one) for one in found], limit, ApiKeyShape)


@router.post("", summary="Create an API key", openapi_extra=body.documented(CreateApiKey))
async def create_api_key(request: Request, operator: Operator, here: Acting) -> ApiKeyWithValue:
    """Make a key; this answer is the only one that has it. 403 if it would have more than the key that makes it."""
    asked = body.check(CreateApiKey, body.decode(await body.read(request, MAX_ADMIN_JSON_BYTES)))
    id, value = await here.db.run(
        keys.create,
        asked.tenant,
        asked.name,
        Role(asked.role),
        read_scopes(asked.scopes or ()),
        None if asked.expires_in_seconds is None else timedelta(seconds=asked.expires_in_seconds),
        None if asked.models is None else frozenset(asked.models),
        maker=operator,
        settings=here.settings,
    )
    return admin_shapes.api_key_with_value(await here.db.autocommit(keys.get, id), value)


@router.get("/{key_id}", summary="Look at an API key")
async def get_api_key(key_id: str, operator: Operator, here: Here) -> ApiKeyShape:
    """Everything about a key but the key."""
    return admin_shapes.api_key(await here.db.autocommit(keys.get, key_id))


@router.post(
    "/{key_id}/rotate", summary="Rotate an API key", openapi_extra=body.documented(RotateApiKey, required=False)
)
async def rotate_api_key(request: Request, key_id: str, operator: Operator, here: Acting) -> ApiKeyWithValue:
    """A new key with the same rights and the same end, told in this answer only; the old one goes on for a day.

    409 if it was rotated already, is not valid any more, or its tenant is being erased. 403 and 429 as for a create:
    while both are valid they are two, so a tenant with as many keys as it may have rotates without an overlap.
    """
    asked = await body.optional(RotateApiKey, request, MAX_ADMIN_JSON_BYTES)
    overlap = timedelta(seconds=asked.overlap_seconds)
    id, value = await here.db.run(keys.rotate, key_id, overlap, maker=operator, settings=here.settings)
    return admin_shapes.api_key_with_value(await here.db.autocommit(keys.get, id), value)


@router.delete("/{key_id}", summary="Revoke an API key")
async def delete_api_key(key_id: str, operator: Operator, here: Acting) -> DeletedApiKey:
    """Make a key invalid from now on; it stays in the list. 404 if it is revoked already."""
    await here.db.run(keys.revoke_any, key_id)
    return DeletedApiKey(id=key_id)
