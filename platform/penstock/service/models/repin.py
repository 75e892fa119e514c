"""Repin: unstarted work of open batches goes to another version; what an engine has begun stays where it is.

A batch is pinned for life, unless an operator says this. Lines that name the very version (`chat@v2`) stay with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from penstock.domain.api_errors import BadRequest
from penstock.domain.models.alias import place_of_batch
from penstock.domain.models.registry import ModelTarget, Registry, UnknownTarget
from penstock.domain.models.version import Version
from penstock.service.core import audit
from penstock.service.core.transaction import Transaction
from penstock.service.lifecycle import dispatch
from penstock.service.models import registry
from penstock.service.models import versions as model_versions
from penstock.settings.dispatch import DispatchSettings
from penstock.store.batches import batches
from penstock.store.models import repin as pins

MOST_AT_ONCE: Final = 200


@dataclass(frozen=True)
class Repinned:
    """What one step did."""

    batches: int
    slices: int
    after: str | None
    """The last batch that was looked at, for the next step; None: that was the last one."""


def repin(tx: Transaction, name: str, to: str, settings: DispatchSettings, *, after: str = "") -> Repinned:
    """Pin unstarted work of the version `name` (`chat@v2`) to what `to` stands for now, for up to 200 batches.

    `to` is the model, one of its aliases or versions; each batch keeps its place of an alias. Raises NotFound, or
    BadRequest for a `to` that is another model's or stands for nothing.
    """
    version = model_versions.named(tx, name)
    now = registry.of(tx, to)
    if now.name_of(to) != version.model:
        raise BadRequest(f"{to!r} is no version or alias of {version.model!r}.", param="to")
    _target(now, to, "")
    found = pins.batches(tx.conn, version, after=after, limit=MOST_AT_ONCE)
    if found:
        batches.lock_all(tx.conn, found)
    moved_batches = moved_slices = 0
    queues = set()
    for batch in found:
        target = _target(now, to, batch)
        if target.number in (version.number, None):
            continue
        if moved := pins.move(tx.conn, batch, version, target):
            _pin(tx, batch, version, target.number)
            moved_batches, moved_slices = moved_batches + 1, moved_slices + moved
            queues.add(target.queue)
    for queue in sorted(queues):
        dispatch.feed(tx, queue, settings)
    if moved_batches:
        audit.record(tx, audit.NOBODY, "model_version.repinned", version.name, to=to, batches=moved_batches)
    return Repinned(moved_batches, moved_slices, found[-1] if len(found) == MOST_AT_ONCE else None)


def _target(now: Registry, to: str, batch: str) -> ModelTarget:
    try:
        return now.resolve(to, place_of_batch(batch, now.name_of(to)))
    except UnknownTarget as error:
        raise BadRequest(error.message, code=error.code, param="to") from None


def _pin(tx: Transaction, batch: str, version: Version, number: int) -> None:
    """The batch says its new version beside the old one, or instead of it where nothing of that is left."""
    stays = pins.stays(tx.conn, batch, version)
    now = pins.pinned(tx.conn, batch) or {version.model: [version.number]}
    for asked, numbers in now.items():
        if version.number in numbers and asked in _asked_of(version, now) and asked != version.name:
            kept = [one for one in numbers if one != number and (one != version.number or asked in stays)]
            now[asked] = [*kept, number]
    pins.pin(tx.conn, batch, now)


def _asked_of(version: Version, pinned: dict[str, list[int]]) -> set[str]:
    return {asked for asked in pinned if asked == version.model or asked.rpartition("@")[0] == version.model}
