"""Validate: spool → scan → check limits → plan → commit, or fail the batch with all its errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import structlog

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import LeaseLost, TooMany, TooSlow, Unauthorized
from penstock.domain.fleet.model import ModelFacts
from penstock.domain.limits.limit import LimitName
from penstock.domain.models.registry import ModelTarget
from penstock.domain.work.batch import Batch, BatchEnd, BatchState, LineError
from penstock.domain.work.slice import Cut, FoldCut
from penstock.domain.work.terms import OnInvalid
from penstock.failpoint import failpoint
from penstock.service.core import scratch
from penstock.service.core.ids import blob_key
from penstock.service.core.transaction import Database, Transaction
from penstock.service.lifecycle import closing, dispatch
from penstock.service.limits import kept
from penstock.service.models.pins import LineModel, pins
from penstock.service.planning import line_models, plan, skipped
from penstock.service.planning.derive import derive
from penstock.service.planning.scan import Scan, scan
from penstock.service.planning.skipped import SkippedLines
from penstock.settings import Settings
from penstock.settings.dispatch import DispatchSettings
from penstock.settings.limits import LimitSettings
from penstock.store.batches import batches, files
from penstock.store.fleet import models, workers
from penstock.store.models import versions
from penstock.store.work import batch_leases, slices

log = structlog.get_logger()


@dataclass(frozen=True)
class Validated:
    """How a validation ended; `lines` of a plan in `slices` beside `skipped` ones, or `errors` found."""

    batch: str
    lines: int = 0
    slices: int = 0
    errors: int = 0
    skipped: int = 0


def validate(db: Database, blobs: Blobs, batch: Batch, lease: int, settings: Settings) -> Validated:
    """Validate and plan a batch under a lease; raise LeaseLost if the batch was closed or taken meanwhile."""
    if batch.parent is not None and batch.input_key is None:
        derived = derive(db, blobs, batch, lease, settings)
        if derived is None:
            return Validated(batch.id, errors=1)
        batch = derived
    assert batch.input_key is not None, "inline jobs are validated in their POST"
    with spooled(blobs, batch.input_key, settings.scratch_dir) as path:
        facts = db.run(lambda tx: models.facts(tx.conn))
        # Equal lines of one slice are asked once, and only a plan puts them there.
        may_name = db.run(line_models.of_batch, batch)
        bad = SkippedLines(db, blobs, batch) if batch.on_invalid is OnInvalid.SKIP else None
        found = scan(path, batch.endpoint, facts, may_name, settings, dedup=batch.dedup and batch.plan, skipped=bad)
        if not found.error_count:
            db.run(check_limit, batch.tenant, found, settings)
        if found.error_count:
            db.run(refuse, batch.id, lease, found, bad)
            return Validated(batch.id, errors=found.error_count)
        if bad is not None:
            bad.flush()
        key = blob_key(batch.tenant, "plans")
        db.run(lambda tx: files.intend(tx.conn, key))
        index_key = write_index(db, blobs, batch, found)
        targets = {name: may_name.target(name) for line in found.models for name in line.names}
        made = plan.make(found, db.run(speeds, found.models, targets, facts, settings), settings, reorder=batch.plan)
        cuts = plan.write(path, made, blobs, key, may_name)
        failpoint("validate.planned")
        db.run(begin, batch, lease, found, key, cuts, settings, bad, targets, index_key)
    return Validated(batch.id, len(found.numbers), len(cuts), skipped=bad.count if bad else 0)


def write_index(db: Database, blobs: Blobs, batch: Batch, found: Scan) -> str:
    """Write where the lines of the input are; the blob's key, which `begin` names, unless the file has an index."""
    key = blob_key(batch.tenant, "indexes")
    db.run(lambda tx: files.intend(tx.conn, key))
    blobs.put(key, found.index)
    found.index = b""
    return key


@contextmanager
def spooled(blobs: Blobs, key: str, folder: Path) -> Iterator[Path]:
    """The blob as a local file that goes away afterwards."""
    with scratch.folder(folder, "validate-") as inside:
        path = inside / "input"
        with path.open("wb") as file:
            for piece in blobs.pieces(key):
                scratch.check(folder, len(piece))
                file.write(piece)
        yield path


def check_limit(tx: Transaction, tenant: str, found: Scan, settings: LimitSettings) -> None:
    """Refuse the file if the tenant would have too many lines or estimated tokens open, each as often as it is asked.

    Raises LeaseLost if the tenant is being erased: its batches are closed.
    """
    at_once = np.array([line.at_once for line in found.models], dtype=np.int64)[
        np.frombuffer(found.model_of, np.uint16)
    ]
    tokens = np.frombuffer(found.tokens, np.uint32)
    more = {LimitName.QUEUED_LINES: int(at_once.sum()), LimitName.QUEUED_TOKENS: int((at_once * tokens).sum())}
    try:
        kept.check(tx, tenant, more, settings)
    except Unauthorized:
        raise LeaseLost from None
    except TooMany as error:
        found.refuse(LineError(error.code or "limit_exceeded", error.message), settings.max_errors_listed)


def speeds(
    tx: Transaction,
    models: Iterable[LineModel],
    targets: Mapping[str, ModelTarget],
    facts: Mapping[str, ModelFacts],
    settings: Settings,
) -> dict[LineModel, plan.Speed]:
    """How much work a slice should be, by what its lines ask: of several members that of the slowest."""
    queues = sorted({target.queue for target in targets.values()})
    paces = workers.paces(tx.conn, queues, gone=timedelta(seconds=settings.worker_gone_seconds))
    each = {
        name: plan.speed(paces.get(target.queue), facts.get(target.queue), settings) for name, target in targets.items()
    }
    return {line: min((each[name] for name in line.names), key=lambda one: one.slice_tokens) for line in models}


def refuse(tx: Transaction, batch: str, lease: int, found: Scan, bad: SkippedLines | None = None) -> None:
    """End the batch as failed with its errors, if the lease is still its own."""
    batches.lock(tx.conn, batch)
    if not batches.holds(tx.conn, batch, lease, BatchState.VALIDATING):
        raise LeaseLost
    errors = sorted(found.errors, key=lambda error: error.line or 0)
    closing.end(tx, [batch], BatchEnd(BatchState.FAILED, errors=errors, error_count=found.error_count))
    if bad is not None:
        skipped.give_up(tx, bad)
    batch_leases.settle(tx.conn, lease)


def begin(
    tx: Transaction,
    batch: Batch,
    lease: int,
    found: Scan,
    key: str,
    cuts: list[Cut | FoldCut],
    settings: DispatchSettings,
    bad: SkippedLines | None = None,
    targets: Mapping[str, ModelTarget] | None = None,
    index_key: str | None = None,
) -> None:
    """Publish the plan and its slices in one step, if the lease is still the batch's own and nobody closed it.

    `targets`: what the names stand for that the lines ask, or their ensembles' members; the batch is pinned to it.
    None: each for itself.
    """
    asked = {line.asked for line in found.models}
    model = asked.pop() if len(asked) == 1 else None
    total = len(found.numbers) + (bad.count if bad else 0)
    lane = batches.begin(
        tx.conn,
        batch.id,
        lease=lease,
        model=model,
        total=total,
        plan_key=key,
        default_model=found.default_model,
        versions=pins(found.models, targets) if targets else {},
    )
    if lane is None:
        raise LeaseLost
    pinned = [(one.name, one.number) for one in (targets or {}).values() if one.number is not None]
    if pinned and versions.keep(tx.conn, pinned):
        raise LeaseLost  # one was retired while the file was read: whoever takes the batch next reads what holds then
    slices.insert(tx.conn, batch.id, cuts, lane)
    if bad is not None and bad.count:
        skipped.record(tx, batch.id, lane, lease, bad)
    if not files.published(tx.conn, [key]):
        raise LeaseLost  # the plan's blob was given up meanwhile: whoever takes the batch next writes another
    if index_key is not None and batch.input_file is not None:
        try:
            if not files.index(tx.conn, batch.tenant, batch.input_file, index_key):
                files.doom(tx.conn, [index_key])
        except TooSlow:
            raise LeaseLost from None  # as with the plan
    batch_leases.settle(tx.conn, lease)
    if not cuts:
        closing.move_on(tx, batch.id)  # all lines are skipped
    for queue in sorted({one.model for cut in cuts for one in cut.members if not one.waits}):
        dispatch.feed(tx, queue, settings)
