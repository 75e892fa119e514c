"""`/v1/batches/{id}/members`, and the same of jobs: how far the members of its ensembles are."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from penstock.api.auth import Tenant
from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here, Platform
from penstock.service.views import member_progress

router = APIRouter(responses=DOCUMENTED)


class MemberProgressShape(BaseModel):
    """What one member was asked, and what came of it."""

    ensemble: str = Field(description="With its version: `support@v2`.")
    member: str = Field(description="Its label, as the trace has it: `tiny#2`, `judge`.")
    model: str = Field(description="With its version, where it has any.")
    asked: int = Field(description="Lines that go to it, as far as that is known.")
    answered: int
    failed: int
    left: int = Field(description="`asked`, less those that it has answered or failed.")
    undecided: int = Field(description="Lines that go to it only if members before it, which are not done, don't do.")


class MemberProgressList(BaseModel):
    """Members in the order of their ensemble; none of what asks plain models."""

    object: Literal["list"] = "list"
    data: list[MemberProgressShape]


async def _members(here: Platform, tenant: str, kind: str, id: str) -> MemberProgressList:
    found = await here.db.autocommit(member_progress.of_batch, tenant, kind, id)
    return MemberProgressList(
        data=[
            MemberProgressShape(
                ensemble=one.ensemble,
                member=one.member,
                model=one.model,
                asked=one.asked,
                answered=one.answered,
                failed=one.failed,
                left=one.left,
                undecided=one.undecided,
            )
            for one in found
        ]
    )


@router.get("/v1/batches/{batch_id}/members", summary="Look how far members of ensembles are", tags=["batches"])
async def get_batch_members(batch_id: str, tenant: Tenant, here: Here) -> MemberProgressList:
    """By member of the ensembles that its lines ask: lines asked, answered, failed and left.

    A line counts once for each member that is asked it, so they don't add up to the batch's counts. One statement,
    which adds up slices.
    """
    return await _members(here, tenant, "batch", batch_id)


@router.get("/v1/jobs/{job_id}/members", summary="Look how far members of ensembles are", tags=["jobs"])
async def get_job_members(job_id: str, tenant: Tenant, here: Here) -> MemberProgressList:
    """As `/v1/batches/{batch_id}/members`."""
    return await _members(here, tenant, "job", job_id)
