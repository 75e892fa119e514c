"""`/v1/admin`: what an operator does over all tenants. One file a noun; each has a router, which ROOMS names."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from penstock.api.http.errors import DOCUMENTED
from penstock.api.routes.admin import api_keys, audit, erasures, limits, overview, tenants

ROOMS: Final = (tenants, erasures, api_keys, limits, audit, overview)

router = APIRouter(prefix="/v1/admin", tags=["admin"], responses=DOCUMENTED)
for room in ROOMS:
    router.include_router(room.router)

BODIES: Final = tuple(body for room in ROOMS for body in room.BODIES)
