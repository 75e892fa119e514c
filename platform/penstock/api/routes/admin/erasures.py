"""`/v1/admin/erasures`: how far the erasure of a tenant is, also when the tenant is gone."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from penstock.api.auth import Operator
from penstock.api.http.body import Asked
from penstock.api.platform import Here
from penstock.api.schemas import admin_shapes
from penstock.api.schemas.admin_shapes import ErasureShape
from penstock.service.control import erasure

router = APIRouter(prefix="/erasures")

BODIES: Final[tuple[type[Asked], ...]] = ()


@router.get("/{erasure_id}", summary="Look at an erasure")
async def get_erasure(erasure_id: str, operator: Operator, here: Here) -> ErasureShape:
    """How far it is; one that is completed is kept as long as the audit."""
    return admin_shapes.erasure(await here.db.autocommit(erasure.get, erasure_id))
