"""Submit: a file becomes a batch; requests become a job, small ones in rows and large ones as a file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import msgspec

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import BadRequest
from penstock.domain.reuse import CacheMode
from penstock.domain.work import hint
from penstock.domain.work.batch import ENDPOINTS, Batch, BatchState, LineError, parse_window
from penstock.domain.work.lane import Lane
from penstock.domain.work.slice import Cut
from penstock.formats import input as lines
from penstock.formats import plan
from penstock.formats.input import Checked
from penstock.service.core.idempotency import Idempotency, remembered
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.service.estimates import token_heuristic
from penstock.service.intake.small_job_intake import SmallJobIntake
from penstock.service.intake.upload import Sealed, Upload
from penstock.service.webhooks import endpoints
from penstock.service.webhooks.endpoints import WebhookRequest
from penstock.settings import Settings
from penstock.store.batches import batches, files
from penstock.store.work import small_jobs
from penstock.store.work.small_jobs import NewJob

DEFAULT_WINDOW: Final = "24h"


@dataclass(frozen=True)
class Terms:
    """What batches and jobs have in common: what is asked, how urgently, until when, and the caller's notes."""

    endpoint: str
    lane: Lane = Lane.STANDARD
    completion_window: str = DEFAULT_WINDOW
    metadata: dict[str, str] = field(default_factory=dict)
    output_expires_seconds: int | None = None
    dedup: bool = True
    plan: bool = True
    """False: lines are asked in file order."""
    cache: CacheMode | None = None
    """None: what the tenant has chosen."""
    cache_ttl_seconds: int | None = None
    webhook: WebhookRequest | None = None


@dataclass(frozen=True)
class JobLine:
    """One request of a job: its body is JSON on one line, as the client wrote it."""

    custom_id: str | None
    body: bytes
    param: str
    """Where in the caller's request this stands, for errors: `` (a single body) or `requests[3]`."""


def create_batch(
    tx: Transaction, tenant: str, input_file: str, terms: Terms, once: Idempotency | None, settings: Settings
) -> Batch:
    """Create a batch that waits to be validated; raise BadRequest if its file can't be used."""
    window = _check(terms, settings)
    if again := _again(tx, tenant, once):
        return again
    file = files.share(tx.conn, tenant, input_file)
    if file is None:
        message = f"No such file: {input_file!r}. It does not exist, was deleted or has expired."
        raise BadRequest(message, param="input_file_id")
    if file.purpose != "batch":
        raise BadRequest(f"The file's purpose must be 'batch', not {file.purpose!r}.", param="input_file_id")
    order = _Order(tenant, terms, window, once)
    return _insert(tx, order, fresh("batch_"), "batch", file=(file.id, file.blob_key))[0]


@dataclass(frozen=True)
class _Order:
    """Who wants a batch or job, on which terms, and under which key once only."""

    tenant: str
    terms: Terms
    window: timedelta
    once: Idempotency | None


def _insert(
    tx: Transaction,
    order: _Order,
    id: str,
    kind: str,
    *,
    file: tuple[str, str],
) -> tuple[Batch, bool]:
    """Insert a batch or job over a file (its id and blob), to be validated.

    The earlier one and False if the same request came twice at once, and the other was first.
    """
    terms, once = order.terms, order.once
    made = batches.insert(
        tx.conn,
        order.tenant,
        id=id,
        kind=kind,
        inline=False,
        state=BatchState.VALIDATING,
        endpoint=terms.endpoint,
        model=None,
        lane=terms.lane,
        completion_window=terms.completion_window,
        window=order.window,
        metadata=terms.metadata,
        input_file=file[0],
        input_key=file[1],
        output_expires_seconds=terms.output_expires_seconds,
        idempotency_key=once.key if once else None,
        fingerprint=once.fingerprint if once else None,
        dedup=terms.dedup,
        plan=terms.plan,
        cache=terms.cache,
        cache_ttl_seconds=terms.cache_ttl_seconds,
    )
    if not made:
        return _first(tx, order.tenant, once), False
    if terms.webhook:
        endpoints.attach(tx, order.tenant, id, terms.webhook)
    tx.hint(hint.validate(id))
    return _get(tx, order.tenant, id), True


async def create_job(
    db: AsyncDatabase,
    blobs: Blobs,
    intake: SmallJobIntake,
    tenant: str,
    asks: Sequence[JobLine],
    default_model: str | None,
    terms: Terms,
    once: Idempotency | None,
    settings: Settings,
) -> Batch:
    """Create a job: inline and in progress at once if it is small and has one model, else a file to be validated.

    An inline one shares a statement with those that come at the same time, unless it has a webhook or is made once
    only; what it must know comes from the intake, which also feeds its model afterwards.
    Raises BadRequest, NotFound (`model_not_found`) or TooMany for an inline job; a large one fails as a batch does.
    """
    order = _Order(tenant, terms, _check(terms, settings), once)
    if once and (again := await db.run(_again, tenant, once)):
        return again
    few = len(asks) == 1  # a thread costs more than one request does
    requests = (
        requests_of(asks, default_model, terms.endpoint)
        if few
        else await asyncio.to_thread(requests_of, asks, default_model, terms.endpoint)
    )
    small = len(requests) <= settings.max_inline_requests and sum(map(len, requests)) <= settings.max_inline_bytes
    if small:
        checked = [_checked(ask, line, terms.endpoint, settings) for ask, line in zip(asks, requests, strict=True)]
        if len({one.model for one in checked}) == 1:
            return await _create_inline(db, intake, order, requests, checked, settings)
    async with Upload(db, blobs, tenant, settings.max_file_bytes) as upload:
        for line in requests:
            await upload.write(line + b"\n")
        return await upload.publish(_create_filed(order, settings))


def requests_of(asks: Sequence[JobLine], default_model: str | None, endpoint: str) -> list[bytes]:
    """The job's requests as lines of a batch file; raise BadRequest if two have one custom_id."""
    seen: dict[str, str] = {}
    requests = []
    for number, ask in enumerate(asks, 1):
        custom_id = f"request-{number}" if ask.custom_id is None else ask.custom_id
        if first := seen.get(custom_id):
            message = f"custom_id {custom_id[:64]!r} is in {first} and in {ask.param}."
            raise BadRequest(message, code="duplicate_custom_id", param=_param(ask, "custom_id"))
        seen[custom_id] = ask.param
        body = _with_model(ask.body, default_model) if default_model is not None else ask.body
        requests.append(lines.write(custom_id, endpoint, msgspec.Raw(body)))
    return requests


class _Model(msgspec.Struct):
    model: msgspec.Raw = msgspec.Raw()  # empty where it is missing


_read_model = msgspec.json.Decoder(_Model).decode


def _with_model(body: bytes, model: str) -> bytes:
    """The body with this model, unless it names one itself; what is no object is left to the check of the line."""
    try:
        if bytes(_read_model(body).model):
            return body
    except msgspec.ValidationError:
        return body
    rest = body[1:]
    return b'{"model":' + msgspec.json.encode(model) + (b"" if rest == b"}" else b",") + rest


def _checked(ask: JobLine, line: bytes, endpoint: str, settings: Settings) -> Checked:
    checked = lines.check(line, 1, endpoint, settings.max_custom_id_bytes)
    if isinstance(checked, LineError):
        raise BadRequest(checked.message, code=checked.code, param=_param(ask, checked.param))
    return checked


def _param(ask: JobLine, param: str | None) -> str | None:
    return ".".join(part for part in (ask.param, param) if part) or None


async def _create_inline(
    db: AsyncDatabase,
    intake: SmallJobIntake,
    order: _Order,
    requests: Sequence[bytes],
    checked: Sequence[Checked],
    settings: Settings,
) -> Batch:
    model = checked[0].model
    facts = await intake.facts(order.tenant, model)
    tokens = sum(
        token_heuristic.tokens(one, len(line), order.terms.endpoint, facts, settings)
        for one, line in zip(checked, requests, strict=True)
    )
    await intake.reserve(order.tenant, model, tokens)
    framed = b"".join(plan.frame(number, line) for number, line in enumerate(requests, 1))
    cut = Cut(
        model=model,
        plan_offset=0,
        plan_bytes=len(framed),
        lines=len(requests),
        first_line=1,
        last_line=len(requests),
        tokens=tokens,
    )
    job = _new(order, cut, framed)
    if order.terms.webhook or order.once:
        batch = await db.run(_insert_inline, order, job)
    else:
        batch = await intake.insert(job)
    intake.feed(model)
    return batch


def _new(order: _Order, cut: Cut, framed: bytes) -> NewJob:
    terms, once = order.terms, order.once
    return NewJob(
        id=fresh("job_"),
        tenant=order.tenant,
        cut=cut,
        inline=framed,
        endpoint=terms.endpoint,
        lane=terms.lane,
        completion_window=terms.completion_window,
        window=order.window,
        metadata=terms.metadata,
        output_expires_seconds=terms.output_expires_seconds,
        idempotency_key=once.key if once else None,
        fingerprint=once.fingerprint if once else None,
        dedup=terms.dedup,
        plan=terms.plan,
        cache=terms.cache,
        cache_ttl_seconds=terms.cache_ttl_seconds,
    )


def _insert_inline(tx: Transaction, order: _Order, job: NewJob) -> Batch:
    [made] = small_jobs.insert(tx.conn, [job])
    if made and order.terms.webhook:
        endpoints.attach(tx, order.tenant, job.id, order.terms.webhook)
    return made or _first(tx, order.tenant, order.once)


def _create_filed(order: _Order, settings: Settings) -> Callable[[Transaction, Sealed], tuple[Batch, bool]]:
    """The transaction that makes a large job's file and the job visible together."""

    def create(tx: Transaction, sealed: Sealed) -> tuple[Batch, bool]:
        id = fresh("job_")
        file = fresh("file-")
        batch, made = _insert(tx, order, id, "job", file=(file, sealed.key))
        if not made:
            return batch, False
        files.insert(
            tx.conn,
            order.tenant,
            id=file,
            purpose="batch",
            filename=f"{id}.jsonl",
            bytes=sealed.size_bytes,
            sha256=sealed.sha256,
            blob_key=sealed.key,
            ttl=timedelta(seconds=settings.file_ttl_seconds),
        )
        return batch, True

    return create


def _check(terms: Terms, settings: Settings) -> timedelta:
    if terms.endpoint not in ENDPOINTS:
        raise BadRequest(f"endpoint must be one of {', '.join(ENDPOINTS)}.", param="endpoint")
    return parse_window(terms.completion_window, settings.max_window_seconds)


def _again(tx: Transaction, tenant: str, once: Idempotency | None) -> Batch | None:
    """What this idempotency key made before, if anything."""
    if once is None:
        return None
    id = remembered(once, batches.by_idempotency_key(tx.conn, tenant, once.key))
    return _get(tx, tenant, id) if id else None


def _first(tx: Transaction, tenant: str, once: Idempotency | None) -> Batch:
    batch = _again(tx, tenant, once)
    assert batch is not None, "only an idempotency key can be taken, and its batch is there"
    return batch


def _get(tx: Transaction, tenant: str, id: str) -> Batch:
    batch = batches.get(tx.conn, tenant, id)
    assert batch is not None, "it was inserted here"
    return batch
