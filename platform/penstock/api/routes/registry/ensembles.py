"""`/v1/ensembles`: models that are made of several. For operators; what they are asked as is in `/v1/models`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field

from penstock.api.auth import Acting, Operator
from penstock.api.http import body
from penstock.api.http.body import Asked, Text
from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here
from penstock.api.schemas import ensemble_shapes
from penstock.api.schemas.ensemble_shapes import DeletedEnsemble, EnsembleList, EnsembleShape
from penstock.domain.ensembles.classifier import (
    EMBEDS_CHARS,
    MOST_CLASS_CHARS,
    MOST_CLASSES,
    MOST_TEXT_CHARS,
    MOST_TEXTS,
)
from penstock.domain.ensembles.classifier import READS_CHARS as CLASSIFIER_READS_CHARS
from penstock.domain.ensembles.definition import (
    LEAST_READS_CHARS,
    MOST_COST,
    MOST_MEMBERS,
    MOST_PROMPT,
    MOST_READS_CHARS,
    MOST_SECONDS,
    MOST_WEIGHT,
    READS_CHARS,
)
from penstock.domain.ensembles.ensemble import DEFAULT_TIMEOUT_SECONDS
from penstock.domain.ensembles.rules import MOST_RULES
from penstock.service.ensembles import ensembles
from penstock.service.ensembles.ensembles import MOST_BYTES

router = APIRouter(prefix="/v1/ensembles", tags=["models"], responses=DOCUMENTED)


class CreateMember(Asked):
    """A model that may be asked in the ensemble's place."""

    model: Text = Field(description="A model, `name@alias` or `name@v3`; no ensemble.", min_length=1, max_length=200)
    params: dict[str, Any] = Field({}, description="Fields that a request has there if it does not say them itself.")
    weight: float | None = Field(
        None,
        description="Of a `vote`, `best_of` or `combine`: what its vote weighs, or its answer where the judge gives no "
        "verdict; 1 unless it is said.",
        gt=0,
        le=MOST_WEIGHT,
    )


class CreateRule(Asked):
    """Which member is used when all conditions hold."""

    when: dict[str, Any] | None = Field(
        None,
        min_length=1,
        description="`prompt_tokens_over`, `prompt_tokens_under`, `contains_code`, `tools`, `response_format`, "
        "`metadata`, `regex` (of the last message), `language`, `label`. Left out: always, so it is the last.",
    )
    use: Text = Field(description="A member, by its `model`.")


class CreateExtract(Asked):
    """How a vote is read of a member's text: in one of these ways, or the whole text is the vote."""

    regex: Text | None = Field(None, description="Its first match, of that the first group.", max_length=1_000)
    json_: Text | None = Field(None, alias="json", description="A JSON pointer into the text, which is JSON: `/label`.")
    json_schema: dict[str, Any] | None = Field(
        None, description="Its `enum`, or that of its one property that has one, are the only votes that count."
    )
    normalise: Literal["trim", "lower_trim"] = Field(
        "trim", description="What is done to votes before they are compared."
    )


class CreateAccept(Asked):
    """When an answer is good enough: all that is said must hold."""

    mean_logprob_over: float | None = Field(None, description="Of its tokens, in nats; chat and completions.", le=0)
    regex: Text | None = Field(None, description="Found in its text.", max_length=1_000)
    json_schema: dict[str, Any] | None = Field(None, description="Its text is JSON that this allows.")


class CreateJudge(Asked):
    """The model that reads the members' answers."""

    model: Text = Field(description="A model, `name@alias` or `name@v3`; no ensemble.", min_length=1, max_length=200)
    params: dict[str, Any] = Field(
        {}, description="Fields of what it is asked. Of a `best_of` `temperature` 0 and `max_tokens` 1024 unless said."
    )
    prompt: Text | None = Field(
        None,
        description="With `{answers}`, and `{request}` and `{count}` if it likes, in the places of what it reads.",
        max_length=MOST_PROMPT,
    )
    reads_chars: int | None = Field(
        None,
        description="Of the request, and of all answers together: what is longer is cut. "
        f"{READS_CHARS:,} unless it is said.",
        ge=LEAST_READS_CHARS,
        le=MOST_READS_CHARS,
    )


class CreateClassifier(Asked):
    """The model that says what a request is about."""

    model: Text = Field(description="A model, `name@alias` or `name@v3`; no ensemble.", min_length=1, max_length=200)
    by: Literal["chat", "embeddings"] | None = Field(
        None,
        description="`chat` (unless it is said): it writes text, and names a label. `embeddings`: it is asked for the "
        "vectors of the request and of each label's texts, and the nearest one's label is the request's.",
    )
    labels: list[Annotated[Text, Field(min_length=1, max_length=MOST_CLASS_CHARS)]] = Field(
        description="What it may say; all different.", min_length=1, max_length=MOST_CLASSES
    )
    prompt: Text | None = Field(
        None,
        description="With `{request}`, and `{labels}` if it likes, in the places of what it reads. None by "
        "`embeddings`.",
        max_length=MOST_PROMPT,
    )
    examples: dict[str, list[Annotated[Text, Field(min_length=1, max_length=MOST_TEXT_CHARS)]]] | None = Field(
        None,
        description="By `embeddings`: texts that stand for a label; its own name does where it has none. "
        f"{MOST_TEXTS} of all labels together.",
    )
    params: dict[str, Any] = Field(
        {},
        description="Fields of what it is asked; `temperature` 0 and `max_tokens` 1024 unless said, by `embeddings` "
        "`encoding_format` `base64` (or `float`).",
    )
    reads_chars: int | None = Field(
        None,
        description=f"Of the last user message: what is longer is cut. {CLASSIFIER_READS_CHARS:,} unless it is said, "
        f"by `embeddings` {EMBEDS_CHARS:,}.",
        ge=LEAST_READS_CHARS,
        le=MOST_READS_CHARS,
    )


class CreateEnsemble(Asked):
    """What an ensemble is made of, or its next version."""

    name: Text = Field(description="As `model` of requests names it; no model's name.", min_length=1, max_length=200)
    kind: Literal["route", "fallback", "vote", "cascade", "best_of", "combine"] = Field(
        description="`route`: each request goes to one member, by rules. `fallback`: the first member that answers. "
        "`vote`: all are asked, and most decide. `cascade`: the first answer that is good enough. `best_of`: all are "
        "asked, and a judge names the best. `combine`: all are asked, and a judge writes one answer of theirs."
    )
    members: list[CreateMember] = Field(
        description="In their order. Two at least, and a model may be there several times, in all kinds but `route`.",
        min_length=1,
        max_length=MOST_MEMBERS,
    )
    rules: list[CreateRule] | None = Field(None, description="Of a `route`.", max_length=MOST_RULES)
    default: Text | None = Field(
        None, description="Of a `route`: the member where no rule holds; or a last rule without `when`."
    )
    classifier: CreateClassifier | None = Field(
        None, description="Of a `route`: asked first where a rule needs a `label`."
    )
    extract: CreateExtract | None = Field(None, description="Of a `vote`: how it is read.")
    tie: Literal["heaviest", "first", "judge"] | None = Field(
        None,
        description="Of a `vote`: of votes that weigh the same that of the heaviest member (unless it is said), that "
        "of the first, or the one that the `judge` names.",
    )
    judge: CreateJudge | None = Field(
        None, description="Of a `best_of`, of a `combine` of texts, and of a `vote` with `tie` `judge`: needed."
    )
    method: Literal["mean", "reciprocal_rank"] | None = Field(
        None, description="Of a `combine` without a judge: of embeddings (`mean`), scores and ranks (either)."
    )
    min_responses: int | None = Field(
        None,
        description="Of a `vote`, `best_of` or `combine`: with fewer votes, or answers, the request has failed; 1 "
        "unless it is said.",
        ge=1,
    )
    accept: CreateAccept | None = Field(None, description="Of a `cascade`, which needs it.")
    on_error: Literal["skip", "fail"] | None = Field(
        None,
        description="Of all but `fallback`: a member that gives no answer is passed over (unless it is said), or is "
        "the request's failure; so is a judge without a verdict, and a `route`'s classifier without a label.",
    )
    timeout_seconds: float | None = Field(
        None,
        description="So long a call waits for a member, and a batch for a worker of one; of a `route` for its "
        "classifier; "
        f"{DEFAULT_TIMEOUT_SECONDS} unless it is said.",
        gt=0,
        le=MOST_SECONDS,
    )
    max_cost: float | None = Field(
        None,
        description="In the currency of the prices, for each request: once its answers' tokens have cost so much, no "
        "later member and no judge is asked. Of all that ask somebody later; not of a `route`, of a `vote` whose ties "
        "no judge decides, or of a `combine` with a `method`.",
        gt=0,
        le=MOST_COST,
    )


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
    return ensemble_shapes.ensemble(view.ensemble, view.counts, view.agreement)


@router.delete("/{ensemble:path}", summary="Remove an ensemble")
async def remove_ensemble(ensemble: str, operator: Operator, here: Acting) -> DeletedEnsemble:
    """Let its name stand for nothing: requests that name it are refused, what is planned goes on. For operators."""
    await here.db.run(ensembles.remove, ensemble)
    return DeletedEnsemble(id=ensemble)
