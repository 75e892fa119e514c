"""`/v1/workers`: the fleet, for operators: who there is, how each stands, and orders to it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from penstock.api.auth import Acting, Operator
from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here, Platform
from penstock.api.schemas import worker_shapes
from penstock.api.schemas.paging import After, Limit
from penstock.api.schemas.shapes import Page, page
from penstock.api.schemas.worker_shapes import WorkerShape
from penstock.domain.fleet.worker import Order
from penstock.service.admin import workers

router = APIRouter(prefix="/v1/workers", tags=["admin"], responses=DOCUMENTED)


@router.get("", summary="List workers")
async def list_workers(
    operator: Operator,
    here: Here,
    gone: Annotated[bool, Query(description="Those that have ended, too; they are known for a day.")] = False,
    after: After = None,
    limit: Limit = 20,
) -> Page[WorkerShape]:
    """All processes that register (gpu and io workers, keepers) by kind, model and start, those that are lost too."""
    found = await here.db.autocommit(workers.page, gone=gone, after=after, limit=limit + 1)
    silent = here.settings.worker_gone_seconds
    return page([worker_shapes.worker(one, silent) for one in found], limit, WorkerShape)


@router.get("/{worker_id}", summary="Look at a worker")
async def get_worker(worker_id: str, operator: Operator, here: Here) -> WorkerShape:
    """One process, for a day after it was last heard of."""
    found = await here.db.autocommit(workers.get, worker_id)
    return worker_shapes.worker(found, here.settings.worker_gone_seconds)


@router.post("/{worker_id}/drain", summary="Drain a worker")
async def drain_worker(worker_id: str, operator: Operator, here: Acting) -> WorkerShape:
    """Let it take nothing new, from its next beat on: what it holds goes on to its end, and its process stays.

    It is `drained` once it holds nothing. The order ends with the process: one that starts anew takes work.
    409 for a keeper, and for a worker that has ended.
    """
    return await _order(here, worker_id, Order.DRAIN)


@router.post("/{worker_id}/undrain", summary="Undrain a worker")
async def undrain_worker(worker_id: str, operator: Operator, here: Acting) -> WorkerShape:
    """Let a drained worker take work again, from its next beat on. 409 as for a drain."""
    return await _order(here, worker_id, Order.UNDRAIN)


@router.post("/{worker_id}/restart", summary="Restart a worker's engine")
async def restart_worker(worker_id: str, operator: Operator, here: Acting) -> WorkerShape:
    """End its engine and start it again, once, from its next beat on; the worker's process stays.

    As when a worker ends: lines in flight have `PENSTOCK_CLOSE_GRACE_SECONDS` to be answered, then slices are given
    back without blame; calls inside have `PENSTOCK_INGRESS_GRACE_SECONDS`. Asked again before it is done it is the same
    restart. A drained worker stays drained. 409 as for a drain, and for what has no engine.
    """
    return await _order(here, worker_id, Order.RESTART)


async def _order(here: Platform, id: str, what: Order) -> WorkerShape:
    return worker_shapes.worker(await here.db.run(workers.order, id, what), here.settings.worker_gone_seconds)
