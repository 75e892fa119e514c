"""`/v1/ensembles`: models that are made of several. For operators; what they are asked as is in `/v1/models`."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from pydantic import Field

from penstock.api.auth import Acting, Operator
from penstock.api.http import body
from penstock.api.http.body import Asked, Text
from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here
from penstock.api.schemas import ensemble_shapes
from penstock.api.schemas.ensemble_shapes import DeletedEnsemble, EnsembleList, EnsembleShape
from penstock.domain.ensembles.definition import MOST_MEMBERS, MOST_RULES
from penstock.service.ensembles import ensembles
from penstock.service.ensembles.ensembles import MOST_BYTES

router = APIRouter(prefix="/v1/ensembles", tags=["models"], responses=DOCUMENTED)


class CreateMember(Asked):
    """A model that may be asked in the ensemble's place."""

    model: Text = Field(description="A model, `name@alias` or `name@v3`; no ensemble.", min_length=1, max_length=200)
    params: dict[str, Any] = Field({}, description="Fields that a request has there if it does not say them itself.")


class CreateRule(Asked):
    """Which member is used when all conditions hold."""

    when: dict[str, Any] | None = Field(
        None,
        min_length=1,
        description="`prompt_tokens_over`, `prompt_tokens_under`, `contains_code`, `tools`, `response_format`, "
        "`metadata`, `regex` (of the last message). Left out: always, so it is the last.",
    )
    use: Text = Field(description="A member, by its `model`.")


class CreateEnsemble(Asked):
    """What an ensemble is made of, or its next version."""

    name: Text = Field(description="As `model` of requests names it; no model's name.", min_length=1, max_length=200)
    kind: Text = Field(description="`route`: each request goes to the member that the first rule says which holds.")
    members: list[CreateMember] = Field(min_length=1, max_length=MOST_MEMBERS)
    rules: list[CreateRule] = Field([], max_length=MOST_RULES)
    default: Text | None = Field(None, description="The member where no rule holds; or a last rule without `when`.")


BODIES: Final = (CreateEnsemble,)
Version = Annotated[int | None, Query(ge=1, le=2_147_483_647, description="The one that counts now unless named.")]


@router.get("", summary="List ensembles")
async def list_ensembles(operator: Operator, here: Here) -> EnsembleList:
    """Every ensemble by name, in the version that counts now, without counts. For operators."""
    found = await here.db.autocommit(ensembles.page)
    return EnsembleList(data=[ensemble_shapes.ensemble(one) for one in found])


@router.post("", summary="Add an ensemble", openapi_extra=body.documented(CreateEnsemble))
async def create_ensemble(request: Request, operator: Operator, here: Acting) -> EnsembleShape:
    """Add an ensemble, or the next version of one; just the same again is the same version. For operators.

    In force for what is planned from now on, and in every API process within two seconds. Batches that are planned keep
    their version. 400 says what is wrong and where, 409 (`name_taken`) that the name is a model's.
    """
    definition = body.decode(await body.read(request, MOST_BYTES))
    return ensemble_shapes.ensemble(await here.db.run(ensembles.add, definition))


@router.get("/{ensemble:path}", summary="Look at an ensemble")
async def get_ensemble(ensemble: str, operator: Operator, here: Here, version: Version = None) -> EnsembleShape:
    """One version, and what went to each of its members; the name may hold slashes. For operators."""
    view = await here.db.autocommit(ensembles.view, ensemble, version)
    return ensemble_shapes.ensemble(view.ensemble, view.counts)


@router.delete("/{ensemble:path}", summary="Remove an ensemble")
async def remove_ensemble(ensemble: str, operator: Operator, here: Acting) -> DeletedEnsemble:
    """Let its name stand for nothing: requests that name it are refused, what is planned goes on. For operators."""
    await here.db.run(ensembles.remove, ensemble)
    return DeletedEnsemble(id=ensemble)
