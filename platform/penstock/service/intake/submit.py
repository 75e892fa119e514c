"""Submit: a file becomes a batch; requests become a job, small ones in rows and large ones as a file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import msgspec

from penstock.blobs.store import Blobs
from penstock.domain.accounts.access import check_model
from penstock.domain.api_errors import BadRequest
from penstock.domain.ensembles.ensemble import ChosenMember, Ensemble
from penstock.domain.file import BATCH
from penstock.domain.idempotency import Once
from penstock.domain.inference_endpoints import BATCHED
from penstock.domain.limits.limit import LimitName
from penstock.domain.work.batch import Batch, LineError, parse_window
from penstock.domain.work.new_batch import NewBatch, NewJob
from penstock.domain.work.slice import Cut
from penstock.domain.work.terms import Terms
from penstock.formats import input as lines
from penstock.formats import plan
from penstock.formats.input import Checked
from penstock.service.core.ids import fresh
from penstock.service.core.transaction import AsyncDatabase, Transaction
from penstock.service.ensembles.routing import Router, Unroutable
from penstock.service.estimates import token_heuristic
from penstock.service.intake import creation
from penstock.service.intake.creation import attach, first, made_before
from penstock.service.intake.small_job_intake import SmallJobIntake
from penstock.service.intake.upload import Sealed, Upload
from penstock.service.limits import kept
from penstock.service.models.pins import LineModel, pins
from penstock.settings import Settings
from penstock.settings.limits import LimitSettings
from penstock.settings.plans import PlanSettings
from penstock.store.batches import files
from penstock.store.work import small_jobs


@dataclass(frozen=True)
class JobLine:
    """One request of a job: its body is JSON on one line, as the client wrote it."""

    custom_id: str | None
    body: bytes
    param: str
    """Where in the caller's request this stands, for errors: `` (a single body) or `requests[3]`."""


def create_batch(
    tx: Transaction, tenant: str, input_file: str, terms: Terms, once: Once | None, settings: LimitSettings
) -> Batch:
    """Create a batch that waits to be validated; raise BadRequest if its file can't be used."""
    new = _new(tenant, "batch", terms, once, settings)
    if again := made_before(tx, tenant, once):
        return again
    file = files.share(tx.conn, tenant, input_file)
    if file is None:
        message = f"No such file: {input_file!r}. It does not exist, was deleted or has expired."
        raise BadRequest(message, param="input_file_id")
    if file.purpose != BATCH:
        raise BadRequest(f"The file's purpose must be 'batch', not {file.purpose!r}.", param="input_file_id")
    return creation.insert(tx, replace(new, input_file=file.id, input_key=file.blob_key), settings)[0]


def _new(tenant: str, kind: str, terms: Terms, once: Once | None, settings: LimitSettings) -> NewBatch:
    if terms.endpoint not in BATCHED:
        raise BadRequest(f"endpoint must be one of {', '.join(BATCHED)}.", param="endpoint")
    window = parse_window(terms.completion_window, settings.max_window_seconds)
    return NewBatch(fresh(f"{kind}_"), tenant, kind, terms, window, once)


async def create_job(
    db: AsyncDatabase,
    blobs: Blobs,
    intake: SmallJobIntake,
    tenant: str,
    asks: Sequence[JobLine],
    default_model: str | None,
    terms: Terms,
    once: Once | None,
    settings: Settings,
) -> Batch:
    """Create a job: inline and in progress at once if it is small and has one model (of a route: one member), else a
    file to be validated.

    An inline one shares a statement with those that come at the same time, unless it has a webhook or is made once
    only; what it must know comes from the intake, which also feeds its model afterwards.
    Raises BadRequest, Forbidden (`model_not_allowed`), ModelNotFound or TooMany for an inline job; a
    large one fails as a batch does.
    """
    new = _new(tenant, "job", terms, once, settings)
    if once and (again := await db.run(made_before, tenant, once)):
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
        for ask, one in zip(asks, checked, strict=True):
            check_model(terms.allowed_models, one.model, _param(ask, "model") or "model")
        if len({one.model for one in checked}) == 1:
            ensemble = await intake.ensemble(new, checked[0].model)
            members: set[tuple[ChosenMember, ...]] = {()}
            if ensemble is not None:
                checked, members = await asyncio.to_thread(_routed, ensemble, terms.endpoint, asks, checked, settings)
            if len(members) == 1 and not (ensemble and ensemble.gathers):
                return await _create_inline(db, intake, new, requests, checked, settings, members.pop())
    async with Upload(db, blobs, tenant, settings.max_file_bytes) as upload:
        for line in requests:
            await upload.write(line + b"\n")
        return await upload.publish(_create_filed(new, settings))


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


def _checked(ask: JobLine, line: bytes, endpoint: str, settings: LimitSettings) -> Checked:
    checked = lines.check(line, 1, endpoint, settings.max_custom_id_bytes)
    if isinstance(checked, LineError):
        raise BadRequest(checked.message, code=checked.code, param=_param(ask, checked.param))
    return checked


def _routed(
    ensemble: Ensemble, endpoint: str, asks: Sequence[JobLine], checked: Sequence[Checked], settings: PlanSettings
) -> tuple[list[Checked], set[tuple[ChosenMember, ...]]]:
    """The requests as the members get them that they go to, and which those are; raise BadRequest."""
    router, made, members = Router(settings.bytes_per_token), [], set[tuple[ChosenMember, ...]]()
    for ask, one in zip(asks, checked, strict=True):
        try:
            routed = router.routed(ensemble, endpoint, one.body)
        except Unroutable as error:
            raise BadRequest(error.message, code=error.code, param=_param(ask, "body")) from None
        found = lines.check_body(one, endpoint, routed.body, 1)
        if isinstance(found, LineError):
            raise BadRequest(found.message, code=found.code, param=_param(ask, found.param))
        made.append(found)
        members.add(routed.members)
    return made, members


def _param(ask: JobLine, param: str | None) -> str | None:
    return ".".join(part for part in (ask.param, param) if part) or None


async def _create_inline(
    db: AsyncDatabase,
    intake: SmallJobIntake,
    new: NewBatch,
    requests: Sequence[bytes],
    checked: Sequence[Checked],
    settings: PlanSettings,
    members: tuple[ChosenMember, ...],
) -> Batch:
    model = checked[0].model
    chosen = members[0] if members else None
    target, facts = await intake.look(new, model, chosen)
    tokens = sum(
        token_heuristic.tokens(one, len(line), new.terms.endpoint, facts, settings)
        for one, line in zip(checked, requests, strict=True)
    )
    await intake.reserve(new.tenant, model, len(requests), tokens)
    asks = LineModel(model, members)
    framed = b"".join(plan.frame(number, line) for number, line in enumerate(requests, 1))
    cut = Cut(
        model=target.queue,
        asked=model if target.adapter or model != target.name else None,
        adapter=target.adapter.id if target.adapter else None,
        chosen=chosen,
        plan_offset=0,
        plan_bytes=len(framed),
        lines=len(requests),
        first_line=1,
        last_line=len(requests),
        tokens=tokens,
    )
    job = NewJob(new, cut, framed, model, pins([asks], {asks.names[0]: target}))
    if new.terms.webhook or new.once:
        batch = await db.run(_insert_inline, job)
    else:
        batch = await intake.insert(job)
    intake.feed(target.queue)
    return batch


def _insert_inline(tx: Transaction, job: NewJob) -> Batch:
    if again := made_before(tx, job.batch.tenant, job.batch.once):
        return again
    [made] = small_jobs.insert(tx.conn, [job])
    if made:
        attach(tx, job.batch)
    return made or first(tx, job.batch)


def _create_filed(new: NewBatch, settings: LimitSettings) -> Callable[[Transaction, Sealed], tuple[Batch, bool]]:
    """The transaction that makes a large job's file and the job visible together."""

    def create(tx: Transaction, sealed: Sealed) -> tuple[Batch, bool]:
        if again := made_before(tx, new.tenant, new.once):
            return again, False
        file = fresh("file-")
        batch, made = creation.insert(tx, replace(new, input_file=file, input_key=sealed.key), settings)
        if not made:
            return batch, False
        kept.check(tx, new.tenant, {LimitName.FILES: 1, LimitName.STORED_BYTES: sealed.size_bytes}, settings)
        files.insert(
            tx.conn,
            new.tenant,
            id=file,
            purpose="batch",
            filename=f"{new.id}.jsonl",
            bytes=sealed.size_bytes,
            sha256=sealed.sha256,
            blob_key=sealed.key,
            ttl=timedelta(seconds=settings.file_ttl_seconds),
        )
        return batch, True

    return create
