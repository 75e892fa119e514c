"""Who calls: a Bearer key names a tenant and what it may do; everything that follows is that tenant's."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import Scope

from penstock.api.http import request_turns
from penstock.api.platform import Here, Platform
from penstock.domain.accounts.access import Access, Role
from penstock.domain.accounts.audit import Actor
from penstock.domain.api_errors import Unauthorized
from penstock.domain.limits.limit import LimitName
from penstock.service.admin import keys

_bearer = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer sk-penstock-…`.")

GRANTED: Final = "penstock.granted"
"""In the scope of a request that was made inside this process: what its maker may do at this moment, an `Access`. No
client can say it: what comes over a connection has no such thing."""

Given = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def whose(scope: Scope) -> str:
    """The tenant whose key a request brings, as far as this process remembers it: for its turn, not for what it may."""
    platform: Platform = scope["app"].state.platform
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"").decode("latin-1")
    scheme, _, key = given.partition(" ")
    known_one = platform.key_cache.whose(key.strip()) if scheme.lower() == "bearer" else None
    return known_one or request_turns.NOBODY


def told(scope: Scope) -> dict[str, str]:
    """Headers that say how the rates of a request's key stand, of one that is known and has any."""
    access: Access | None = scope.get("penstock.access")
    if access is None:
        return {}
    platform: Platform = scope["app"].state.platform
    return platform.limiter.headers(access)


async def known(request: Request, key: str) -> str:
    """The tenant of a key, remembered for seconds.

    Raises Unauthorized (late, if many wrong ones come), TooMany, and Forbidden if the request goes beyond the key.
    """
    here: Platform = request.app.state.platform
    try:
        if not key:
            raise Unauthorized
        access = await here.key_cache.access_of(key)
    except Unauthorized:
        request_turns.of(request.scope).leave()
        await here.key_cache.refuse()
    request.scope["penstock.access"] = access
    await here.limiter.take(access, LimitName.REQUESTS_PER_MINUTE)
    here.key_uses.note(access.key)
    access.check(request.method, request.url.path)
    return access.tenant


def access_of(request: Request) -> Access:
    """What the key of a request that is known may do."""
    access: Access = request.scope["penstock.access"]
    return access


def allowed_models(request: Request) -> frozenset[str] | None:
    """What the key of a request may ask; None: every model. What a key may do never changes."""
    return access_of(request).models


async def _known(request: Request, given: Given) -> str:
    granted: Access | None = request.scope.get(GRANTED)
    if granted is not None:
        granted.check(request.method, request.url.path)
        request.scope["penstock.access"] = granted
        return granted.tenant
    return await known(request, given.credentials if given else "")


async def _access(request: Request, here: Here, given: Given) -> Access:
    await _known(request, given)  # so that wrong keys cost no connection
    if GRANTED in request.scope:
        return access_of(request)
    return await here.db.autocommit(keys.access_of, given.credentials if given else "")


Caller = Annotated[Access, Depends(_access)]
"""What the key may do that is valid at this moment."""


async def _acting(request: Request, here: Here, access: Caller) -> Platform:
    actor = Actor(access.key, request.scope["penstock.request_id"])
    return dataclasses.replace(here, db=here.db.by(actor))


Acting = Annotated[Platform, Depends(_acting)]
"""What routes work with whose acts are audited: its database knows who asks."""


async def _operator(access: Caller) -> Access:
    assert access.role is Role.OPERATOR, "Access.check lets nobody else there"
    return access


Operator = Annotated[Access, Depends(_operator)]
"""An operator's key that is valid at this moment."""


async def _tenant(access: Caller) -> str:
    return access.tenant


Known = Annotated[str, Depends(_known)]
"""The tenant where many calls come: a key is remembered for seconds, so a revoked one lives a little longer."""

Tenant = Annotated[str, Depends(_tenant)]
"""The tenant whose key is valid at this moment."""
