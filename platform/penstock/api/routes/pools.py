"""`/v1/pools`, for operators: machines that serve more versions than fit at once, and what they decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from pydantic import Field

from penstock.api.auth import Acting, Operator
from penstock.api.http import body
from penstock.api.http.body import Asked, Text
from penstock.api.http.errors import DOCUMENTED
from penstock.api.platform import Here, Platform
from penstock.api.schemas import pool_shapes
from penstock.api.schemas.paging import Limit
from penstock.api.schemas.pool_shapes import DeletedPool, PoolDecisionShape, PoolShape
from penstock.api.schemas.shapes import Page, page
from penstock.domain.accounts.price import read
from penstock.domain.pools.pool import MOST_VERSIONS, PoolKind
from penstock.service.pools import decisions, pools
from penstock.service.pools.pools import WantedMember

router = APIRouter(prefix="/v1/pools", tags=["admin"], responses=DOCUMENTED)

_MAX_BYTES: Final = 256 * 1024
_Bytes = Annotated[int, Field(ge=1, le=2**53 - 1)]
_After = Annotated[str | None, Query(description="The last id of the page before.", max_length=200)]


class AskedBounds(Asked):
    """How long the oldest work of a lane may wait for its version; null: until its deadline."""

    priority: float | None = Field(600.0, description="Seconds.")
    standard: float | None = Field(3_600.0, description="Seconds.")


class AskedTerms(Asked):
    """How the pool switches; what is left out stays, or is the default."""

    awake: int = Field(1, description="So many versions at once, on each host.")
    share_lost: float = Field(0.1, description="At most about so much of the time is switching.")
    least_quantum_seconds: float = Field(20.0, description="A version with work stays so long at least.")
    linger_seconds: float = Field(2.0, description="One without stays so long before another takes its place.")
    bounds: AskedBounds = Field(AskedBounds(), description="By lane.")
    call_bound_seconds: float = Field(60.0, description="So long, and a switch, calls of on-demand versions wait.")
    most_switches_for_calls: int = Field(20, description="In an hour.")


class AskedVersion(Asked):
    """A version that the pool may serve."""

    version: Text = Field(description="`chat@v2`; a model or alias is the version that it stands for mostly now.")
    on_demand: bool = Field(False, description="Whether a waiting call may wake it.")
    memory_bytes: _Bytes | None = Field(None, description="What it needs while it is awake.")


class _Pool(Asked):
    device: Text | None = Field(None, description="What its machines have, e.g. `h100`; null: nothing is said.")
    region: Text | None = Field(None, description="Where they are.")
    memory_bytes: _Bytes | None = Field(None, description="For all versions that are awake at once, of each host.")
    gpu_second: Text | None = Field(None, description="What a GPU-second of it costs, e.g. `0.0012`: for people.")


class CreatePool(_Pool):
    """A new pool."""

    name: Text
    kind: PoolKind = Field(
        PoolKind.SHARED, strict=False, description="`dedicated`: all its versions are awake, always."
    )
    versions: list[AskedVersion] = Field(max_length=MOST_VERSIONS)
    terms: AskedTerms = Field(AskedTerms(), description="How it switches.")


class ChangePool(_Pool):
    """What is to change of a pool; what is left out stays."""

    versions: list[AskedVersion] | None = Field(
        None, max_length=MOST_VERSIONS, description="All that it may serve from now on; pins of those that stay hold."
    )
    terms: AskedTerms = Field(AskedTerms(), description="Those of them that change.")


class VersionOfPool(Asked):
    """One of its versions."""

    version: Text = Field(description="`chat@v2`.")


BODIES: Final = (CreatePool, ChangePool, VersionOfPool)


@router.get("", summary="List pools")
async def list_pools(operator: Operator, here: Here, after: _After = None, limit: Limit = 20) -> Page[PoolShape]:
    """Pools by name, with their live hosts, what is awake there, and what waits."""
    found = await here.db.autocommit(pools.page, here.settings, after=after, limit=limit + 1)
    return page([pool_shapes.pool(one) for one in found], limit, PoolShape)


@router.post("", summary="Make a pool", openapi_extra=body.documented(CreatePool))
async def create_pool(request: Request, operator: Operator, here: Acting) -> PoolShape:
    """Make a pool of versions that there are; its hosts are started with its name (`penstock worker --pool NAME`)."""
    asked = body.check(CreatePool, body.decode(await body.read(request, _MAX_BYTES)))
    given = _given(asked.model_dump(exclude_unset=True))
    name, members = given.pop("name"), given.pop("members")
    made = await here.db.run(pools.create, name, members, **given)
    return await _shape(here, made.name)


@router.get("/{pool_name}", summary="Look at a pool")
async def get_pool(pool_name: str, operator: Operator, here: Here) -> PoolShape:
    """One pool, its live hosts, what is awake there, and what waits."""
    return await _shape(here, pool_name)


@router.patch("/{pool_name}", summary="Change a pool", openapi_extra=body.documented(ChangePool))
async def change_pool(request: Request, pool_name: str, operator: Operator, here: Acting) -> PoolShape:
    """Change what is named; its hosts follow within seconds. A version that goes while it is awake is put away."""
    asked = body.check(ChangePool, body.decode(await body.read(request, _MAX_BYTES)))
    await here.db.run(pools.change, pool_name, _given(asked.model_dump(exclude_unset=True)))
    return await _shape(here, pool_name)


@router.delete("/{pool_name}", summary="Remove a pool")
async def delete_pool(pool_name: str, operator: Operator, here: Acting) -> DeletedPool:
    """Remove a pool and its decisions; its versions stay. 409 (`pool_in_use`) while a host of it lives."""
    await here.db.run(pools.remove, pool_name, here.settings)
    return DeletedPool(id=pool_name)


@router.post("/{pool_name}/wake", summary="Wake a version", openapi_extra=body.documented(VersionOfPool))
async def wake_version(request: Request, pool_name: str, operator: Operator, here: Acting) -> PoolShape:
    """Let a version be the next that is awake; then it takes turns as others do. One that was unfit is tried again.

    409 if all places are others' that are pinned.
    """
    await here.db.run(pools.wake, pool_name, await _version(request))
    return await _shape(here, pool_name)


@router.post("/{pool_name}/pin", summary="Pin a version", openapi_extra=body.documented(VersionOfPool))
async def pin_version(request: Request, pool_name: str, operator: Operator, here: Acting) -> PoolShape:
    """Wake a version and keep it awake until it is unpinned. 409 if as many are pinned as may be awake."""
    await here.db.run(pools.pin, pool_name, await _version(request))
    return await _shape(here, pool_name)


@router.post("/{pool_name}/unpin", summary="Unpin a version", openapi_extra=body.documented(VersionOfPool))
async def unpin_version(request: Request, pool_name: str, operator: Operator, here: Acting) -> PoolShape:
    """Let a version take turns as others do."""
    await here.db.run(pools.unpin, pool_name, await _version(request))
    return await _shape(here, pool_name)


@router.post("/{pool_name}/cancel", summary="Cancel a switch")
async def cancel_switch(pool_name: str, operator: Operator, here: Acting) -> PoolDecisionShape:
    """Cancel the pool's switch that has not begun to stop an engine; the version that should have come is left alone
    for five minutes, unless it is woken. 409 (`nothing_to_cancel`)."""
    return pool_shapes.decision(await here.db.run(decisions.cancel, pool_name))


@router.get("/{pool_name}/decisions", summary="List a pool's decisions")
async def list_decisions(
    pool_name: str, operator: Operator, here: Here, after: _After = None, limit: Limit = 20
) -> Page[PoolDecisionShape]:
    """Each switch, newest first, with what it was based on; they are kept for thirty days."""
    found = await here.db.autocommit(decisions.page, pool_name, after=after, limit=limit + 1)
    return page([pool_shapes.decision(one) for one in found], limit, PoolDecisionShape)


async def _shape(here: Platform, name: str) -> PoolShape:
    return pool_shapes.pool(await here.db.autocommit(pools.view, name, here.settings))


async def _version(request: Request) -> str:
    return body.check(VersionOfPool, body.decode(await body.read(request, _MAX_BYTES))).version


def _given(asked: Mapping[str, Any]) -> dict[str, Any]:
    """As the service takes it."""
    given = dict(asked)
    for name in ("device", "region"):
        if name in given:
            given[name] = given[name] or ""
    if "gpu_second" in given:
        price = given.pop("gpu_second")
        given["price"] = None if price is None else read(price, "gpu_second")
    if (versions := given.pop("versions", None)) is not None:
        given["members"] = [WantedMember(**one) for one in versions]
    return given
