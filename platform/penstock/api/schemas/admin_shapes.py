"""What tenants and API keys look like to an operator: OpenAI's fields of admin API keys, and ours beside them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from penstock.api.schemas.shapes import time, unix
from penstock.domain.accounts.api_key import ApiKey
from penstock.domain.accounts.audit import CLI, ERASED, PLATFORM, AuditRow
from penstock.domain.accounts.erasure import Erasure
from penstock.domain.accounts.tenant import Tenant
from penstock.service.core.audit import PREFIX

RoleName = Literal["operator", "tenant", "viewer"]
ScopeName = Literal["files", "batches", "inference", "webhooks"]


class TenantShape(BaseModel):
    """A tenant."""

    id: str = Field(description="Its name.")
    object: Literal["tenant"] = "tenant"
    weight: float = Field(description="2 gets twice the tokens of 1 in a lane where both have work.")
    cache: bool = Field(description="Whether its requests use the shared cache unless they say otherwise.")
    batch_retention_days: int | None = Field(
        description="Its batches and jobs, with their results, go so many days after their end; null: by the settings."
    )
    file_retention_days: int | None = Field(
        description="Its files go so many days after the last batch that read them has ended; null: by their expiry."
    )
    erasure_id: str | None = Field(description="The erasure that goes on; its keys are refused, nothing is taken.")
    created_at: int


class ErasureShape(BaseModel):
    """The erasure of a tenant."""

    id: str
    object: Literal["tenant.erasure"] = "tenant.erasure"
    tenant: str | None = Field(description="Null once it is done: nothing says any more whose it was.")
    status: Literal["in_progress", "completed"]
    removed: dict[str, int] = Field(description="What is gone by now: rows by kind, and `bytes` of files.")
    created_at: int
    completed_at: int | None


class ApiKeyShape(BaseModel):
    """An API key, without its secret."""

    id: str
    object: Literal["organization.admin_api_key"] = "organization.admin_api_key"
    name: str
    redacted_value: str = Field(description="Its beginning and its last four characters.")
    tenant: str
    role: RoleName
    scopes: list[ScopeName]
    models: list[str] | None = Field(description="What it may ask; null: every model.")
    created_at: int = Field(description="Unix seconds; so are all times here.")
    expires_at: int | None = Field(description="It is valid until then; null: until it is revoked.")
    last_used_at: int | None = Field(description="To the minute.")
    revoked_at: int | None
    replaced_by: str | None = Field(description="The key that a rotation made in its place.")


class ApiKeyWithValue(ApiKeyShape):
    """The same in the answer that makes it."""

    value: str = Field(description="The key itself. It is kept nowhere and not told again.")


class DeletedApiKey(BaseModel):
    """Confirms that a key is revoked."""

    id: str
    object: Literal["organization.admin_api_key.deleted"] = "organization.admin_api_key.deleted"
    deleted: bool = True


class ActorShape(BaseModel):
    """Who did it."""

    type: Literal["api_key", "cli", "platform"]
    id: str | None = Field(description="The id of the API key; null if its tenant was erased.")


class AuditShape(BaseModel):
    """One act."""

    id: str
    object: Literal["organization.audit_log"] = "organization.audit_log"
    effective_at: int = Field(description="Unix seconds.")
    tenant: str = Field(description="Whose things it was about; empty for models and prices.")
    actor: ActorShape
    action: str = Field(description="`<what>.<done>`: `api_key.created`, `batch.cancelled`, `tenant.updated`, …")
    target: str = Field(description="What it was done to, by its id.")
    request_id: str | None = Field(description="The `x-request-id` of the request.")
    details: dict[str, Any] = Field(description="A few values; never a secret, a body or an answer.")


def tenant(one: Tenant) -> TenantShape:
    """A tenant's shape."""
    return TenantShape(
        id=one.id,
        weight=one.weight,
        cache=one.cache,
        batch_retention_days=one.batch_retention_days,
        file_retention_days=one.file_retention_days,
        erasure_id=one.erasure,
        created_at=unix(one.created_at),
    )


def erasure(one: Erasure) -> ErasureShape:
    """An erasure's shape."""
    return ErasureShape(
        id=one.id,
        tenant=one.tenant,
        status="in_progress" if one.ended_at is None else "completed",
        removed=one.gone,
        created_at=unix(one.asked_at),
        completed_at=time(one.ended_at),
    )


def api_key(one: ApiKey) -> ApiKeyShape:
    """A key's shape."""
    return ApiKeyShape(**_api_key(one))


def api_key_with_value(one: ApiKey, value: str) -> ApiKeyWithValue:
    """A key's shape with the key itself: in the answer that makes it, never later."""
    return ApiKeyWithValue(**_api_key(one), value=value)


def _api_key(one: ApiKey) -> dict[str, object]:
    return {
        "id": one.id,
        "name": one.name,
        "redacted_value": f"sk-penstock-…{one.tail}",
        "tenant": one.tenant,
        "role": str(one.role),
        "scopes": sorted(one.scopes),
        "models": None if one.models is None else sorted(one.models),
        "created_at": unix(one.created_at),
        "last_used_at": time(one.last_used_at),
        "replaced_by": one.replaced_by,
        "expires_at": time(one.expires_at),
        "revoked_at": time(one.revoked_at),
    }


def audit_row(one: AuditRow) -> AuditShape:
    """An act's shape."""
    kind: Literal["api_key", "cli", "platform"] = "api_key"
    if one.actor.id == CLI.id:
        kind = "cli"
    elif one.actor.id == PLATFORM.id:
        kind = "platform"
    return AuditShape(
        id=f"{PREFIX}{one.id}",
        effective_at=unix(one.at),
        tenant=one.tenant,
        actor=ActorShape(type=kind, id=one.actor.id if kind == "api_key" and one.actor.id != ERASED.id else None),
        action=one.action,
        target=one.target,
        request_id=one.actor.request,
        details=one.details,
    )
