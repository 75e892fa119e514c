"""`/v1/model_aliases`: what the aliases of models stand for. Every key reads; operators change."""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request
from pydantic import Field

from penstock.api.auth import Acting, Caller, Operator
from penstock.api.http import body
from penstock.api.http.body import Asked, Text
from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here
from penstock.api.routes.registry.model_versions import OfModel
from penstock.api.schemas import registry_shapes
from penstock.api.schemas.registry_shapes import AliasHistory, DeletedAlias, ModelAlias, ModelAliases
from penstock.domain.accounts.access import Role, allows, check_model
from penstock.domain.api_errors import BadRequest
from penstock.domain.models.demand import Demand
from penstock.domain.models.version import STABLE, number_of
from penstock.service.models import aliases

router = APIRouter(prefix="/v1/model_aliases", tags=["models"], responses=DOCUMENTED)

_MAX_BYTES: Final = 64 * 1024


class AliasGuard(Asked):
    """When the newest version's share is taken back: if it does worse than the others. It never gives a share."""

    least: int = Field(100, ge=20, le=1_000_000, description="Requests of it, and of the others, to be seen first.")
    worse_percent: float = Field(2.0, ge=0, le=100, description="Percentage points of errors, empty answers or calls "
                                 "slower than promised, beyond what chance explains.")  # fmt: skip


class ChangeAlias(Asked):
    """What an alias stands for from now on."""

    model: Text
    alias: Text = Field(STABLE, description="1 to 40 of a-z, 0-9, _ and -, begins with a letter, no version.")
    guard: AliasGuard | None = Field(None, description="Null: nothing is taken back by itself.")
    weights: dict[str, int] = Field(description='Percent by version, 100 in all, e.g. `{"v1": 90, "v2": 10}`.')


class PromoteVersion(Asked):
    """Which version gets which share."""

    version: Text = Field(description="Such as `v2`.")
    weight: int = Field(100, ge=1, le=100, description="Percent; the rest stays with what the alias stood for.")
    guard: AliasGuard | None = Field(None, description="Null: as the alias has it.")


class DemandProof(Asked):
    """What a version must have shown before its share grows: a completed run of an eval of yours."""

    eval_id: Text
    scorer: Text = Field(description="Of the eval, by its name.")
    at_least: float = Field(ge=0, le=1, description="For the lower end of the 95 % interval of the scorer's mean.")


BODIES: Final = (ChangeAlias, PromoteVersion, DemandProof)


@router.get("", summary="List model aliases")
async def list_model_aliases(caller: Caller, here: Here, model: OfModel = None) -> ModelAliases:
    """What each alias stands for now, of models that your key may ask."""
    if model is not None:
        check_model(caller.models, model)
    found = await here.db.autocommit(aliases.page, model)
    operator = caller.role is Role.OPERATOR
    return ModelAliases(
        data=[registry_shapes.alias(one, operator=operator) for one in found if allows(caller.models, one.model)]
    )


@router.post("", summary="Change a model alias", openapi_extra=body.documented(ChangeAlias))
async def change_model_alias(request: Request, operator: Operator, here: Acting) -> ModelAlias:
    """Let an alias, a new one too, stand for versions by weight: for what is planned or called from now on.

    In force in every API process within two seconds. Batches that are planned keep their versions. 404 for an unknown
    version, 409 for a retired one. For operators.
    """
    asked = body.check(ChangeAlias, body.decode(await body.read(request, _MAX_BYTES)))
    weights = {_number(version): weight for version, weight in asked.weights.items()}
    guard = asked.guard.model_dump() if asked.guard else None
    made = await here.db.run(aliases.change, asked.model, asked.alias, weights, guard=guard)
    return registry_shapes.alias(made, operator=True)


@router.post("/{alias_id:at}/promote", summary="Promote a model version", openapi_extra=body.documented(PromoteVersion))
async def promote_model_version(request: Request, alias_id: str, operator: Operator, here: Acting) -> ModelAlias:
    """Give a version this share of an alias; the rest stays with what it stood for. For operators."""
    asked = body.check(PromoteVersion, body.decode(await body.read(request, _MAX_BYTES)))
    model, alias = _named(alias_id)
    guard = asked.guard.model_dump() if asked.guard else None
    made = await here.db.run(aliases.promote, model, _number(asked.version), alias, asked.weight, guard)
    return registry_shapes.alias(made, operator=True)


@router.post("/{alias_id:at}/demand", summary="Demand a model's eval", openapi_extra=body.documented(DemandProof))
async def demand_proof(request: Request, alias_id: str, operator: Operator, here: Acting) -> ModelAlias:
    """From now on a version's share of this alias grows only if a completed run shows this. For operators.

    A run counts that asked the eval's own lines, without `set`, of the version: it named it (`chat@v2`), or its batch,
    or the completed one of the eval's input file that it scored, is pinned to it alone. Rollbacks and what a guard
    takes back ask for nothing. A promotion without it is a 409 (`not_proven`), which says what there is.
    """
    asked = body.check(DemandProof, body.decode(await body.read(request, _MAX_BYTES)))
    demand = Demand(operator.tenant, asked.eval_id, asked.scorer, asked.at_least)
    return registry_shapes.alias(await here.db.run(aliases.demand, *_named(alias_id), demand), operator=True)


@router.delete("/{alias_id:at}/demand", summary="Demand no eval of a model")
async def demand_nothing(alias_id: str, operator: Operator, here: Acting) -> ModelAlias:
    """From now on versions get larger shares of this alias without a run. For operators."""
    return registry_shapes.alias(await here.db.run(aliases.demand, *_named(alias_id), None), operator=True)


@router.post("/{alias_id:at}/rollback", summary="Roll a model alias back")
async def roll_back_model_alias(alias_id: str, operator: Operator, here: Acting) -> ModelAlias:
    """Let an alias stand again for what it stood for before its last change; again: before that one. For operators.

    409 (`nothing_to_roll_back`) if there was nothing else.
    """
    return registry_shapes.alias(await here.db.run(aliases.rollback, *_named(alias_id)), operator=True)


@router.get("/{alias_id:at}/history", summary="List changes of a model alias")
async def list_model_alias_changes(alias_id: str, caller: Caller, here: Here) -> AliasHistory:
    """The latest 100 changes of an alias, newest first."""
    model, alias = _named(alias_id)
    check_model(caller.models, model)
    found = await here.db.autocommit(aliases.history, model, alias)
    operator = caller.role is Role.OPERATOR
    return AliasHistory(data=[registry_shapes.alias(one, operator=operator) for one in found])


@router.get("/{alias_id:at}", summary="Look at a model alias")
async def get_model_alias(alias_id: str, caller: Caller, here: Here) -> ModelAlias:
    """One alias by its id (`chat@canary`); what a plain name stands for is `chat@stable`."""
    model, alias = _named(alias_id)
    check_model(caller.models, model)
    found = await here.db.autocommit(aliases.get, model, alias)
    return registry_shapes.alias(found, operator=caller.role is Role.OPERATOR)


@router.delete("/{alias_id:at}", summary="Remove a model alias")
async def remove_model_alias(alias_id: str, operator: Operator, here: Acting) -> DeletedAlias:
    """Let an alias stand for nothing: requests that name it are refused. 409 for `stable`. For operators."""
    await here.db.run(aliases.remove, *_named(alias_id))
    return DeletedAlias(id=alias_id)


def _named(id: str) -> tuple[str, str]:
    model, _, alias = id.rpartition("@")
    return model, alias


def _number(version: str) -> int:
    number = number_of(version)
    if number is None:
        raise BadRequest(f"A version is such as v2, not {version[:40]!r}.", param="version")
    return number
