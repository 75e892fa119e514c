"""`/v1/evals`: answers are scored, and runs compared; after OpenAI's Evals, over batches."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Final

from fastapi import APIRouter, Request

from penstock.api.auth import Acting, Tenant, access_of, allowed_models
from penstock.api.http import body
from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here
from penstock.api.repeats import Repeats
from penstock.api.routes import retry
from penstock.api.schemas import eval_shapes as shapes
from penstock.api.schemas.eval_requests import CreateComparison, CreateEval, CreateRun
from penstock.api.schemas.eval_shapes import ComparisonShape, DeletedEval, DeletedRun, EvalShape, RunShape
from penstock.api.schemas.paging import After, Limit
from penstock.api.schemas.shapes import Page, page
from penstock.domain.api_errors import BadRequest
from penstock.domain.evals.comparison import Comparison
from penstock.domain.evals.run import RUN_PREFIX, Eval, EvalRun, RunState, RunTerms, RunView
from penstock.domain.inference_endpoints import named
from penstock.scoring import scorers
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import Transaction
from penstock.service.evals import comparisons, evals, runs

router = APIRouter(prefix="/v1/evals", tags=["evals"], responses=DOCUMENTED)

_MAX_JSON_BYTES: Final = 1024 * 1024
_DEFAULT_ENDPOINT: Final = "/v1/chat/completions"


@router.post("", summary="Create an eval", openapi_extra=body.documented(CreateEval))
async def create_eval(request: Request, tenant: Tenant, here: Acting, repeats: Repeats) -> EvalShape:
    """Say what answers are measured by: exactly, by a pattern, a schema, or their nearness to what was expected."""
    raw = await body.read(request, _MAX_JSON_BYTES)
    asked = body.check(CreateEval, body.decode(raw))
    if len(asked.scorers) > here.settings.max_eval_scorers:
        raise BadRequest(f"An eval has at most {here.settings.max_eval_scorers} scorers.", param="scorers")
    if asked.endpoint is not None and asked.input_file_id is None:
        raise BadRequest("endpoint says what the lines of input_file_id ask: name both.", param="endpoint")
    made = tuple(one.scorer() for one in asked.scorers)
    await asyncio.to_thread(scorers.check, made)  # patterns and schemas of a stranger are compiled
    new = Eval(
        id=fresh("eval_"),
        tenant=tenant,
        name=asked.name,
        scorers=made,
        created_at=datetime.now(UTC),
        input_file=asked.input_file_id,
        endpoint=named(asked.endpoint or _DEFAULT_ENDPOINT) if asked.input_file_id else None,
        reference_file=asked.reference_file_id,
        metadata=asked.metadata or {},
    )
    once = await repeats.once(b"eval" + raw)
    one = await here.db.run(evals.create, tenant, new, once, here.settings)
    await repeats.answering(once, one.id)
    return shapes.eval_(one)


@router.get("", summary="List evals")
async def list_evals(tenant: Tenant, here: Here, after: After = None, limit: Limit = 20) -> Page[EvalShape]:
    """Your evals, newest first."""
    found = await here.db.autocommit(evals.page, tenant, after=after, limit=limit + 1)
    return page([shapes.eval_(one) for one in found], limit, EvalShape)


@router.get("/{eval_id}", summary="Look at an eval")
async def get_eval(eval_id: str, tenant: Tenant, here: Here) -> EvalShape:
    """An eval, and how many runs there are of it."""
    return shapes.eval_(await here.db.autocommit(evals.get, tenant, eval_id))


@router.delete("/{eval_id}", summary="Delete an eval")
async def delete_eval(eval_id: str, tenant: Tenant, here: Acting) -> DeletedEval:
    """Delete an eval with its runs and their results; the batches stay. 409 while a run has not ended."""
    await here.db.run(evals.delete, tenant, eval_id)
    return DeletedEval(eval_id=eval_id)


@router.post("/{eval_id}/runs", summary="Create a run", openapi_extra=body.documented(CreateRun))
async def create_run(request: Request, eval_id: str, tenant: Tenant, here: Acting, repeats: Repeats) -> RunShape:
    """Score a model's answers to the eval's lines, by an ordinary batch; or a batch that has ended, as it is."""
    access_of(request).check_budget()
    raw = await body.read(request, _MAX_JSON_BYTES)
    asked = body.check(CreateRun, body.decode(raw))
    if (asked.model is None) == (asked.batch_id is None):
        raise BadRequest("Name either 'model' or 'batch_id'.", param="model")
    if asked.batch_id is not None and asked.set:
        raise BadRequest("'set' changes what is asked; of a batch that has ended nothing is.", param="set")
    retry.check_changes(asked.set or {})
    terms = RunTerms(
        model=asked.model,
        batch=asked.batch_id,
        changes=asked.set or {},
        lane=asked.lane,
        completion_window=asked.completion_window,
        allowed_models=allowed_models(request),
        api_key=access_of(request).key,
    )
    new = EvalRun(
        id=fresh(RUN_PREFIX),
        tenant=tenant,
        eval=eval_id,
        name=asked.name,
        state=RunState.PREPARING,
        terms=terms,
        created_at=datetime.now(UTC),
        metadata=asked.metadata or {},
    )
    once = await repeats.once(b"eval run" + eval_id.encode() + b"\0" + raw)
    made = await here.db.run(runs.create, tenant, new, once, here.settings)
    await repeats.answering(once, made.id)
    return shapes.run(await here.db.autocommit(runs.view, tenant, eval_id, made.id))


@router.get("/{eval_id}/runs", summary="List runs")
async def list_runs(eval_id: str, tenant: Tenant, here: Here, after: After = None, limit: Limit = 20) -> Page[RunShape]:
    """The eval's runs, newest first."""
    found = await here.db.autocommit(runs.page, tenant, eval_id, after=after, limit=limit + 1)
    return page([shapes.run(one) for one in found], limit, RunShape)


@router.get("/{eval_id}/runs/{run_id}", summary="Look at a run")
async def get_run(eval_id: str, run_id: str, tenant: Tenant, here: Here) -> RunShape:
    """How far a run is; once it is completed, what its scorers found, and what its answers took."""
    return shapes.run(await here.db.autocommit(runs.view, tenant, eval_id, run_id))


@router.post("/{eval_id}/runs/{run_id}/cancel", summary="Cancel a run")
async def cancel_run(eval_id: str, run_id: str, tenant: Tenant, here: Acting) -> RunShape:
    """End a run, and cancel the batches that were made for it. Cancelling twice is the same answer."""
    await here.db.run(runs.cancel, tenant, eval_id, run_id)
    return shapes.run(await here.db.autocommit(runs.view, tenant, eval_id, run_id))


@router.delete("/{eval_id}/runs/{run_id}", summary="Delete a run")
async def delete_run(eval_id: str, run_id: str, tenant: Tenant, here: Acting) -> DeletedRun:
    """Delete a run that has ended, with its results and comparisons; its batch stays."""
    await here.db.run(runs.delete, tenant, eval_id, run_id)
    return DeletedRun(run_id=run_id)


@router.post("/{eval_id}/comparisons", summary="Compare two runs", openapi_extra=body.documented(CreateComparison))
async def create_comparison(request: Request, eval_id: str, tenant: Tenant, here: Acting) -> ComparisonShape:
    """Set a candidate's scores against a baseline's, line by line; the same two runs are compared once."""
    asked = body.check(CreateComparison, body.decode(await body.read(request, _MAX_JSON_BYTES)))
    pair = {"baseline": asked.baseline_run_id, "candidate": asked.candidate_run_id}
    one = await here.db.run(comparisons.create, tenant, eval_id, **pair, settings=here.settings)
    return shapes.comparison(*await here.db.autocommit(_seen, tenant, eval_id, one.id))


@router.get("/{eval_id}/comparisons/{comparison_id}", summary="Look at a comparison")
async def get_comparison(eval_id: str, comparison_id: str, tenant: Tenant, here: Here) -> ComparisonShape:
    """Difference of the means with its interval, lines that got better and worse, cost and time beside it."""
    return shapes.comparison(*await here.db.autocommit(_seen, tenant, eval_id, comparison_id))


def _seen(tx: Transaction, tenant: str, eval: str, id: str) -> tuple[Comparison, RunView, RunView]:
    one = comparisons.get(tx, tenant, eval, id)
    return one, *comparisons.sides(tx, tenant, one)
