"""`/v1/models`: what batches and jobs may name."""

from __future__ import annotations

from fastapi import APIRouter

from penstock.api.auth import Tenant
from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here
from penstock.api.schemas import shapes
from penstock.api.schemas.shapes import ModelList, ModelShape
from penstock.service.admin import models

router = APIRouter(prefix="/v1/models", tags=["models"], responses=DOCUMENTED)


@router.get("", summary="List models")
async def list_models(tenant: Tenant, here: Here) -> ModelList:
    """Every model that was added, or that a worker ever served."""
    return ModelList(data=[shapes.model(one) for one in await here.db.run(models.page, here.settings)])


@router.get("/{model:path}", summary="Look at a model")
async def get_model(model: str, tenant: Tenant, here: Here) -> ModelShape:
    """One model; its name may hold slashes."""
    return shapes.model(await here.db.run(models.get, model, here.settings))
