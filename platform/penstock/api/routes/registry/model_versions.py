"""`/v1/model_versions`: the versions of models. Every key reads those of models that it may ask; operators change."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from pydantic import Field

from penstock.api.auth import Acting, Caller, Operator
from penstock.api.http import at_convertor, body
from penstock.api.http.body import Asked, Text
from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here
from penstock.api.schemas import registry_shapes
from penstock.api.schemas.paging import After, Limit
from penstock.api.schemas.registry_shapes import ModelVersion, Repin
from penstock.api.schemas.shapes import Page, page
from penstock.domain.accounts.access import Role, check_model
from penstock.domain.models.version import Definition, without_secrets
from penstock.service.models import adapters, repin, versions

at_convertor.register()
router = APIRouter(prefix="/v1/model_versions", tags=["models"], responses=DOCUMENTED)

_MAX_BYTES: Final = 1024 * 1024
OfModel = Annotated[str | None, Query(description="Of this model only.", max_length=200)]


class CreateModelVersion(Asked):
    """A version that is to be there before a worker serves it."""

    model: Text
    source: Text = Field(description="A folder or file on the workers' machines, a Hugging Face id, or an address.")
    base: Text | None = Field(
        None,
        description="It is a LoRA adapter that hangs on this version (`chat@v2`, or `chat` for its stable one): the "
        "base's workers serve it. Its files are checked here if they can be seen, else when it is first loaded.",
    )
    engine: Text = Field("vllm", description="The engine that it is started with; an adapter has its base's.")
    arguments: list[Text] = Field([], description="For the engine; values of options that look secret are not kept.")


class RepinVersion(Asked):
    """Where unstarted work goes."""

    to: Text = Field(description="The model, one of its aliases or versions.")


BODIES: Final = (CreateModelVersion, RepinVersion)


@router.get("", summary="List model versions")
async def list_model_versions(
    caller: Caller, here: Here, model: OfModel = None, after: After = None, limit: Limit = 20
) -> Page[ModelVersion]:
    """Versions by model and number, of models that your key may ask."""
    if model is not None:
        check_model(caller.models, model)
    found = await here.db.autocommit(
        versions.page, here.settings, model=model, after=after, limit=limit + 1, allowed=caller.models
    )
    operator = caller.role is Role.OPERATOR
    return page([registry_shapes.version(one, operator=operator) for one in found], limit, ModelVersion)


@router.post("", summary="Add a model version", openapi_extra=body.documented(CreateModelVersion))
async def create_model_version(request: Request, operator: Operator, here: Acting) -> ModelVersion:
    """Add a version, a draft until a worker serves it; the same draft again is the same version.

    It gets no requests until an alias stands for it, but by its id. For operators.
    """
    asked = body.check(CreateModelVersion, body.decode(await body.read(request, _MAX_BYTES)))
    if asked.base is not None:
        on = await here.db.autocommit(adapters.base, asked.base)
        place = await asyncio.to_thread(adapters.look, asked.source, on)
        made = await here.db.run(adapters.add, asked.model, on, place)
    else:
        definition = Definition(asked.source, asked.engine, without_secrets(tuple(asked.arguments)))
        made = await here.db.run(versions.add, asked.model, definition)
    view = await here.db.autocommit(versions.view, made.name, here.settings)
    return registry_shapes.version(view, operator=True)


@router.post("/{version_id:at}/retire", summary="Retire a model version")
async def retire_model_version(version_id: str, operator: Operator, here: Acting) -> ModelVersion:
    """Let nobody ask a version any more. For operators.

    409 (`version_in_use`) while an alias stands for it, or open work is pinned to it.
    """
    await here.db.run(versions.retire, version_id)
    view = await here.db.autocommit(versions.view, version_id, here.settings)
    return registry_shapes.version(view, operator=True)


@router.post(
    "/{version_id:at}/repin", summary="Repin a model version's work", openapi_extra=body.documented(RepinVersion)
)
async def repin_model_version(request: Request, version_id: str, operator: Operator, here: Acting) -> Repin:
    """Pin unstarted work of open batches and jobs, of every tenant, to another version; what has begun stays.

    Lines that name this very version stay with it. For operators.
    """
    asked = body.check(RepinVersion, body.decode(await body.read(request, _MAX_BYTES)))
    batches = slices = 0
    after: str | None = ""
    while after is not None:
        done = await here.db.run(repin.repin, version_id, asked.to, here.settings, after=after)
        batches, slices, after = batches + done.batches, slices + done.slices, done.after
    return Repin(batches=batches, slices=slices)


@router.get("/{version_id:at}", summary="Look at a model version")
async def get_model_version(version_id: str, caller: Caller, here: Here) -> ModelVersion:
    """One version, by its id (`chat@v2`). 403 (`model_not_allowed`) for a model that your key may not ask."""
    check_model(caller.models, version_id)
    view = await here.db.autocommit(versions.view, version_id, here.settings)
    return registry_shapes.version(view, operator=caller.role is Role.OPERATOR)
