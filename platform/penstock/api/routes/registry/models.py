"""`/v1/models`: what batches and jobs may name."""

from __future__ import annotations

from fastapi import APIRouter

from penstock.api.auth import Caller
from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here
from penstock.api.schemas import shapes
from penstock.api.schemas.shapes import ModelList, ModelShape
from penstock.domain.accounts.access import allows, check_model
from penstock.domain.models.version import STABLE
from penstock.service.admin import models
from penstock.service.models import aliases

router = APIRouter(prefix="/v1/models", tags=["models"], responses=DOCUMENTED)


@router.get("", summary="List models")
async def list_models(caller: Caller, here: Here) -> ModelList:
    """Every model that was added, or that a worker ever served, and that your key may ask; and its aliases.

    A plain name is its alias `stable`; versions are in `/v1/model_versions`.
    """
    found = await here.db.autocommit(models.page, here.settings)
    told = {one.name: shapes.model(one) for one in found if allows(caller.models, one.name)}
    for alias in await here.db.autocommit(aliases.page):
        if alias.model in told and alias.alias != STABLE:
            name = f"{alias.model}@{alias.alias}"
            told[name] = told[alias.model].model_copy(update={"id": name})
    return ModelList(data=list(told.values()))


@router.get("/{model:path}", summary="Look at a model")
async def get_model(model: str, caller: Caller, here: Here) -> ModelShape:
    """One model; its name may hold slashes. 403 (`model_not_allowed`) for one that your key may not ask."""
    check_model(caller.models, model)
    return shapes.model(await here.db.autocommit(models.get, model, here.settings))
