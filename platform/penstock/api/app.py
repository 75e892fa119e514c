"""The API: routes over services, and the one place where it gets its database, blobs and hints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

import penstock
from penstock.api.http import errors
from penstock.api.http.body import Room
from penstock.api.platform import Platform
from penstock.api.routes import (
    admin,
    batch_events,
    batches,
    bulk,
    calls,
    deliveries,
    estimate,
    evals,
    files,
    jobs,
    limits,
    lines,
    members,
    pools,
    retry,
    steering,
    uploads,
    usage,
    webhooks,
    workers,
)
from penstock.api.routes.registry import ensembles, model_aliases, model_versions, models
from penstock.api.routes.server import docs_page, health, metrics
from penstock.api.schemas import eval_requests
from penstock.blobs.readiness import BlobReadiness
from penstock.blobs.store import Blobs
from penstock.domain.address import networks, ports
from penstock.domain.api_errors import Unavailable
from penstock.service.admin import keys
from penstock.service.admin.blob_errors import BlobErrors
from penstock.service.calls.api_key_cache import ApiKeyCache
from penstock.service.calls.call import Calls
from penstock.service.calls.call_tally import CallTally
from penstock.service.calls.call_usage import CallUsage
from penstock.service.calls.ensemble_calls import EnsembleCalls
from penstock.service.calls.gathered.gathered_call import GatheredCalls
from penstock.service.calls.key_uses import KeyUses
from penstock.service.calls.poison import Poison
from penstock.service.calls.reuse import bounds
from penstock.service.calls.version_calls import VersionCalls
from penstock.service.calls.wake_waits import WakeWaits
from penstock.service.calls.worker_directory import WorkerDirectory
from penstock.service.core.transaction import AsyncDatabase
from penstock.service.intake.small_job_intake import SmallJobIntake
from penstock.service.limits.limiter import Limiter
from penstock.service.views.batch_watch import BatchWatch
from penstock.service.views.completion_waiter import CompletionWaiter
from penstock.service.webhooks import secret_keys
from penstock.settings import Settings
from penstock.settings.servers import ServerSettings
from penstock.store.engine import async_engine
from penstock.wire.cache import AsyncCache
from penstock.wire.hints import Hinter
from penstock.wire.ingress_client import IngressClient
from penstock.wire.outbound import Outbound

log = structlog.get_logger()

# The first key is there when the port opens, unless Postgres is away for longer than this.
_PATIENCE_SECONDS = 5

_DESCRIPTION = """
Queue-based batch inference for LLMs behind OpenAI's Batch API.

Send a JSONL file as a batch (`/v1/files`, `/v1/batches`), or one request or a few as a job (`/v1/jobs`). OpenAI's SDKs
work with this server's address as their base URL. Errors have OpenAI's envelope, and every answer has an
`x-request-id`. Send the header `Idempotency-Key` with a create that may be repeated; what
an OpenAI SDK repeats by itself is known without it.
"""

# Bodies that routes read by themselves (to limit them, and to keep their bytes), and that the page shall show.
_BODIES = (
    batches.CreateBatch,
    jobs.CreateJob,
    steering.Change,
    retry.CreateRetry,
    estimate.EstimateBatch,
    *batch_events.BODIES,
    *bulk.BODIES,
    *uploads.BODIES,
    *webhooks.BODIES,
    *deliveries.BODIES,
    *eval_requests.BODIES,
    *admin.BODIES,
    *pools.BODIES,
    *model_versions.BODIES,
    *model_aliases.BODIES,
    *ensembles.BODIES,
)


def create_api(settings: Settings) -> FastAPI:
    """Make the API; its connections open when it starts and close when it stops."""
    secret_keys.of(settings)  # a wrong key ends the start, and no request

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        hinter = Hinter(settings.redis_url, settings.hint_timeout_seconds)
        db = AsyncDatabase(async_engine(settings.database_url, settings.api_connections), hinter.say)
        ensuring = asyncio.create_task(_ensure_bootstrap(db, settings))
        await asyncio.wait({ensuring}, timeout=_PATIENCE_SECONDS)
        if ensuring.done():
            ensuring.result()
        key_cache, intake, completion_waiter = (
            ApiKeyCache(db, settings),
            SmallJobIntake(db, settings),
            CompletionWaiter(db),
        )
        cache = AsyncCache(settings.cache_url or settings.redis_url, bounds(settings))
        batch_watch, limiter = BatchWatch(db, settings), Limiter(settings)
        try:
            reach = networks(settings.outbound_allow), ports(settings.outbound_ports), settings.outbound_http
            async with (
                WorkerDirectory(db, settings) as directory,
                IngressClient(settings.ingress_secret.shown, settings.ingress_ca) as client,
                WakeWaits(db, directory, settings) as wakes,
                CallUsage(db) as call_usage,
                VersionCalls(db) as version_calls,
                EnsembleCalls(db) as ensemble_calls,
                KeyUses(db) as key_uses,
                BlobErrors(db),
                Outbound(reach[0], ports=reach[1], plain_http=reach[2]) as outbound,
            ):
                blobs = Blobs(settings.blob_url)
                waiting = Calls(directory, client, Poison(db, directory, settings), settings, cache, wakes=wakes)
                tally = CallTally(directory, call_usage, version_calls, ensemble_calls)
                app.state.platform = Platform(
                    db=db,
                    blobs=blobs,
                    blob_readiness=BlobReadiness(blobs),
                    settings=settings,
                    room=Room(settings.max_bodies_bytes),
                    key_cache=key_cache,
                    limiter=limiter,
                    key_uses=key_uses,
                    intake=intake,
                    completion_waiter=completion_waiter,
                    batch_watch=batch_watch,
                    directory=directory,
                    calls=waiting,
                    gathered_calls=GatheredCalls(waiting, tally),
                    call_tally=tally,
                    outbound=outbound,
                )
                yield
                db.hurry()
        finally:
            ensuring.cancel()
            # At once: where the database does not answer, each waits some seconds for what it asks just now.
            looking = (key_cache, intake, completion_waiter, batch_watch)
            await asyncio.gather(*(one.close() for one in (*looking, limiter, cache)))
            await db.close()
            hinter.close()

    app = FastAPI(
        title="Penstock",
        version=penstock.__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # docs_page
        redoc_url=None,
    )
    for room in (
        calls, files, uploads, estimate, batch_events, bulk, batches, jobs, lines, members, evals, models,
        model_versions, model_aliases, ensembles, limits, usage, webhooks, deliveries, admin, workers, pools,
        health, metrics, docs_page,
    ):  # fmt: skip
        app.router.routes += room.router.routes  # as they stand: include_router would make each of them anew
    errors.install(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign] # as FastAPI says to do
    return app


async def _ensure_bootstrap(db: AsyncDatabase, settings: ServerSettings) -> None:
    """Make the first key valid, as soon as Postgres answers; until then the API says 503."""
    key, told = settings.bootstrap_key, False
    while key is not None:
        try:
            await db.run(keys.ensure_bootstrap, key.get_secret_value())
            return
        except Unavailable as error:
            if not told:  # once: it is tried each second
                log.warning("bootstrap_key_waits", error=error.message)
            told = True
            await asyncio.sleep(1)


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        page = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        _, bodies = models_json_schema(
            [(body, "validation") for body in _BODIES], ref_template="#/components/schemas/{model}"
        )
        page["components"]["schemas"] |= bodies["$defs"]
        app.openapi_schema = page
    return app.openapi_schema
