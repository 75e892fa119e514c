"""Who calls: a Bearer key names a tenant, and everything that follows is that tenant's."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from penstock.api.platform import Here
from penstock.domain.api_errors import BadRequest, Unauthorized
from penstock.service.admin import keys

_bearer = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer sk-penstock-…`.")


async def _tenant(here: Here, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> str:
    if given is None:
        raise Unauthorized
    return await here.db.run(keys.tenant_of, given.credentials)


Tenant = Annotated[str, Depends(_tenant)]


async def _known(here: Here, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> str:
    if given is None:
        raise Unauthorized
    return await here.key_cache.tenant_of(given.credentials)


Known = Annotated[str, Depends(_known)]
"""The same where many calls come: a key is remembered for seconds, as it is for waiting calls."""


async def _idempotency_key(
    idempotency_key: Annotated[
        str | None,
        Header(description="Up to 255 characters of your choice: the same request with the same key is done once."),
    ] = None,
) -> str | None:
    if idempotency_key is None:
        return None
    if not 0 < len(idempotency_key) <= 255 or not idempotency_key.isascii() or not idempotency_key.isprintable():
        raise BadRequest("Idempotency-Key must be 1 to 255 printable ASCII characters.", param="Idempotency-Key")
    return idempotency_key


IdempotencyKey = Annotated[str | None, Depends(_idempotency_key)]
