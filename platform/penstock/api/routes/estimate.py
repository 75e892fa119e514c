"""`/v1/batches/estimate`: what a batch would take, before it is made."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from penstock.api.auth import Tenant, access_of, allowed_models
from penstock.api.http import body
from penstock.api.http.body import Text
from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here
from penstock.api.routes import jobs
from penstock.api.routes.batches import CreateBatch
from penstock.api.routes.jobs import CreateJob
from penstock.domain.accounts.batch_estimate import Spread
from penstock.domain.accounts.price import money
from penstock.domain.limits.limit import LimitName
from penstock.domain.work.terms import DEFAULT_WINDOW, Terms
from penstock.service.estimates import batch_estimate
from penstock.service.estimates.batch_estimate import BatchEstimate
from penstock.service.estimates.estimate_request import EstimateRequest
from penstock.service.estimates.sample import MOST_BYTES
from penstock.service.intake import submit

router = APIRouter(prefix="/v1/batches", tags=["batches"], responses=DOCUMENTED)


class EstimateFile(CreateBatch):
    """What `POST /v1/batches` takes, but the window may be left out."""

    completion_window: Text = Field(DEFAULT_WINDOW, description="`24h`, or any `<n>m`, `<n>h`, `<n>d`.")


class EstimateBatch(CreateJob):
    """What `POST /v1/batches` takes, or `POST /v1/jobs`."""

    input_file_id: Text | None = Field(None, description="A file with the purpose `batch`; or `body`, or `requests`.")


class SpreadShape(BaseModel):
    """From, expected, to."""

    low: float
    expected: float
    high: float


class LinesShape(BaseModel):
    """How many lines with content there are."""

    count: int
    exact: bool = Field(description="Counted; else reckoned from the sample, between `low` and `high`.")
    low: int
    high: int


class ModelEstimate(BaseModel):
    """One model's part."""

    model: str
    lines: SpreadShape
    input_tokens: SpreadShape
    output_tokens: SpreadShape


class BasisShape(BaseModel):
    """What it is based on."""

    sampled_lines: int = Field(description="Lines that were looked at, spread evenly over the file's bytes.")
    bad_lines: int = Field(description="Of those: lines that validation would refuse.")
    first_error: dict[str, Any] | None = Field(description="Why one of those would be refused: `code`, `message`.")
    input: Literal["tokenizer", "measured", "assumed"] = Field(
        description="Input tokens: the engine's tokenizer counted the sample; or bytes over the bytes a token that the "
        "model's earlier lines had; or over an assumed number (`PENSTOCK_BYTES_PER_TOKEN`)."
    )
    output: Literal["measured", "limits", "none"] = Field(
        description="Output tokens: the mean of the model's earlier answers, within what lines allow; or what lines "
        "allow; or none, for endpoints without."
    )


class MoneySpread(BaseModel):
    """From, expected, to: decimal numbers as text."""

    low: str
    expected: str
    high: str


class EstimatedCost(BaseModel):
    """What the tokens would cost, nothing of them being read from a cache."""

    currency: str
    tokens: MoneySpread
    gpu: MoneySpread | None = Field(description="By the price of a GPU-second; null until a token's time is measured.")


class EstimateShape(BaseModel):
    """What a batch would take. Ranges hold the sample's error, and how long answers may be."""

    object: Literal["batch.estimate"] = "batch.estimate"
    lines: LinesShape
    input_tokens: SpreadShape
    output_tokens: SpreadShape
    seconds: SpreadShape | None = Field(
        description="From its start to its last answer, behind what goes before it now; null with a `reason`."
    )
    reason: Literal["not_measured", "no_worker", "paused"] | None
    meets_deadline: bool | None = Field(description="Whether `seconds.expected` is within the window.")
    cost: EstimatedCost | None = Field(description="By today's prices; null where a model has no price.")
    models: list[ModelEstimate]
    based_on: BasisShape


@router.post("/estimate", summary="Estimate a batch", openapi_extra=body.documented(EstimateBatch))
async def estimate_batch(request: Request, tenant: Tenant, here: Here) -> EstimateShape:
    """Say what a batch or job would take in tokens, time and money, before it is made; nothing is kept.

    The body is what the create would get. Some lines are looked at, chosen by the file's id, so that the same file
    gives the same answer.
    """
    with here.limiter.held(access_of(request), LimitName.ESTIMATES), here.room.held(tenant) as held:
        raw = await body.read_into(request, here.settings.max_json_bytes, held)
        here.room.grow(held, len(raw) + MOST_BYTES + here.settings.max_line_bytes)
        wanted = await asyncio.to_thread(_wanted, raw, tenant, here.settings.max_job_requests)
        id = request.scope["penstock.request_id"]
        wanted = dataclasses.replace(wanted, allowed_models=allowed_models(request))
        return _shape(await batch_estimate.estimate(here.db, here.blobs, here.calls, id, wanted, here.settings))


def _wanted(raw: bytes, tenant: str, max_requests: int) -> EstimateRequest:
    fields = body.decode(raw, dict[str, msgspec.Raw])
    if "input_file_id" in fields:
        asked = body.check(EstimateFile, body.decode(raw))
        terms = asked.terms()
        return dataclasses.replace(_of_terms(tenant, terms), input_file=asked.input_file_id, default_model=asked.model)
    job, asks = jobs.parse(raw, max_requests)
    terms = job.terms()
    requests = submit.requests_of(asks, job.model, terms.endpoint)
    return dataclasses.replace(_of_terms(tenant, terms), requests=requests)


def _of_terms(tenant: str, terms: Terms) -> EstimateRequest:
    return EstimateRequest(tenant, terms.endpoint, terms.lane, terms.completion_window, on_invalid=terms.on_invalid)


def _shape(one: BatchEstimate) -> EstimateShape:
    error = one.first_error
    return EstimateShape(
        lines=LinesShape(
            count=round(one.lines.expected),
            exact=one.lines_counted,
            low=math.floor(one.lines.low),
            high=math.ceil(one.lines.high),
        ),
        input_tokens=_tokens(one.all.input_tokens),
        output_tokens=_tokens(one.all.output_tokens),
        seconds=None if one.seconds is None else _spread(one.seconds),
        reason=one.reason,
        meets_deadline=one.meets_deadline,
        cost=_cost(one),
        models=[
            ModelEstimate(
                model=name,
                lines=_tokens(part.lines),
                input_tokens=_tokens(part.input_tokens),
                output_tokens=_tokens(part.output_tokens),
            )
            for name, part in one.models.items()
        ],
        based_on=BasisShape(
            sampled_lines=one.sampled_lines,
            bad_lines=one.bad_lines,
            first_error=None if error is None else {"code": error.code, "message": error.message},
            input=one.input_basis,
            output=one.output_basis,
        ),
    )


def _cost(one: BatchEstimate) -> EstimatedCost | None:
    if one.token_cost is None or one.currency is None:
        return None
    gpu = None if one.gpu_cost is None else _money(one.gpu_cost)
    return EstimatedCost(currency=one.currency, tokens=_money(one.token_cost), gpu=gpu)


def _money(picos: tuple[int, int, int]) -> MoneySpread:
    low, expected, high = map(money, picos)
    return MoneySpread(low=low, expected=expected, high=high)


def _tokens(one: Spread) -> SpreadShape:
    return SpreadShape(low=math.floor(one.low), expected=round(one.expected), high=math.ceil(one.high))


def _spread(one: Spread) -> SpreadShape:
    return SpreadShape(low=round(one.low, 1), expected=round(one.expected, 1), high=round(one.high, 1))
