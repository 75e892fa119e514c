"""Pools by the operator's word: made, changed, removed; their versions woken and pinned. Each act is audited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from penstock.domain.api_errors import BadRequest, Conflict, NotFound
from penstock.domain.models.registry import UnknownTarget
from penstock.domain.models.version import Version
from penstock.domain.pools import pool as rules
from penstock.domain.pools.pool import Pool, PoolKind, PoolMember, PoolView
from penstock.domain.pools.situation import PoolTerms
from penstock.service.core import audit
from penstock.service.core.transaction import Transaction
from penstock.service.models import registry
from penstock.settings.dispatch import DispatchSettings
from penstock.store.models import versions
from penstock.store.pools import pools, situations

_MOST_CHARACTERS: Final = 100


@dataclass(frozen=True)
class WantedMember:
    """A version as an operator names it for a pool."""

    version: str
    """`chat@v2`; or a model or alias, which stands for the version that it means mostly."""
    on_demand: bool = False
    memory_bytes: int | None = None


def create(
    tx: Transaction,
    name: str,
    members: Sequence[WantedMember],
    *,
    kind: PoolKind = PoolKind.SHARED,
    device: str = "",
    region: str = "",
    terms: Mapping[str, Any] | None = None,
    memory_bytes: int | None = None,
    price: int | None = None,
) -> Pool:
    """Make a pool; its hosts are started by its name.

    All versions of a dedicated one are awake at once. `price` is in picounits for a GPU-microsecond. Raises BadRequest
    for what can't be, NotFound for a version that is not there, Conflict if there is a pool of this name.
    """
    rules.check_name(name)
    _check_words(device=device, region=region)
    found = tuple(_member(tx, one) for one in members)
    pool = Pool(
        name=name,
        kind=kind,
        terms=rules.changed(PoolTerms(), terms or {}),
        members=_once(found),
        device=device,
        region=region,
        memory_bytes=memory_bytes,
        price=price,
        created_at=datetime.now(UTC),
    )
    pool = _dedicated(pool)
    rules.check_fits(pool)
    if not pools.insert(tx.conn, pool):
        raise Conflict("there", "made", f"There is a pool {name!r} already.")
    audit.record(tx, audit.NOBODY, "pool.created", name, versions=[one.version.name for one in found])
    return get(tx, name)


def change(tx: Transaction, name: str, given: Mapping[str, Any]) -> Pool:
    """Change what is given of `members`, `device`, `region`, `terms`, `memory_bytes`, `price`; hosts follow within
    seconds. Raises as `create` does, and NotFound for the pool."""
    lock(tx, name)
    pool = get(tx, name)
    values = dict(given)
    _check_words(**{key: values[key] for key in ("device", "region") if key in values})
    members = values.pop("members", None)
    if "terms" in values:
        values["terms"] = rules.changed(pool.terms, values["terms"])
    changed = replace(pool, **values)
    if members is not None:
        before = {one.queue: one for one in pool.members}
        found = _once(tuple(_member(tx, one) for one in members))
        kept = tuple(replace(one, pinned=one.queue in before and before[one.queue].pinned) for one in found)
        changed = replace(changed, members=kept)
    changed = _dedicated(changed)
    rules.check_fits(changed)
    pools.update(tx.conn, changed)
    if members is not None:
        pools.put_members(tx.conn, name, changed.members)
    audit.record(tx, audit.NOBODY, "pool.changed", name, what=sorted(given))
    return get(tx, name)


def remove(tx: Transaction, name: str, settings: DispatchSettings) -> None:
    """Delete a pool with its decisions. Raises NotFound, and Conflict (`pool_in_use`) while a host of it lives."""
    lock(tx, name)
    live = pools.hosts(tx.conn, [name], gone=_gone(settings)).get(name)
    if live:
        where = ", ".join(sorted({one.host for one in live}))
        message = f"Hosts of pool {name!r} live on {where}: end them first."
        raise Conflict("served", "removed", message, code="pool_in_use")
    pools.delete(tx.conn, name)
    audit.record(tx, audit.NOBODY, "pool.removed", name)


def get(tx: Transaction, name: str) -> Pool:
    """One pool; raise NotFound (`pool_not_found`)."""
    found = pools.find(tx.conn, name)
    if found is None:
        raise NotFound("pool", name, param="pool", code="pool_not_found")
    return found


def lock(tx: Transaction, name: str) -> None:
    """Let nobody else change a pool, or decide for it, until the transaction's end; raise NotFound."""
    if not pools.lock(tx.conn, name):
        raise NotFound("pool", name, param="pool", code="pool_not_found")


def page(tx: Transaction, settings: DispatchSettings, *, after: str | None = None, limit: int) -> list[PoolView]:
    """Pools by name, after the one named, with their live hosts and what waits."""
    return _views(tx, pools.page(tx.conn, after=after, limit=limit), settings)


def view(tx: Transaction, name: str, settings: DispatchSettings) -> PoolView:
    """One pool with its live hosts and what waits; raise NotFound."""
    return _views(tx, [get(tx, name)], settings)[0]


def wake(tx: Transaction, name: str, version: str) -> Pool:
    """Want a version awake next, and once: then it takes its turns as others do. One that was unfit is tried again.

    Raises NotFound, and Conflict if all places are others' who are pinned.
    """
    pool, member = _of(tx, name, version)
    if told := _all_pinned(pool, member):
        raise Conflict("pinned", "awake", f"No place is free in pool {name!r}: {told} is pinned. Unpin one first.")
    pools.wake(tx.conn, name, member.queue)
    audit.record(tx, audit.NOBODY, "pool.woken", name, version=member.version.name)
    return get(tx, name)


def pin(tx: Transaction, name: str, version: str) -> Pool:
    """Want a version awake until it is unpinned. Raises NotFound, and Conflict if as many are pinned as may be awake.

    One that was unfit is tried again.
    """
    pool, member = _of(tx, name, version)
    if told := _all_pinned(pool, member):
        message = f"{pool.terms.awake} may be awake at once in pool {name!r}, and {told} is pinned: unpin one first."
        raise Conflict("pinned", "pinned", message)
    pools.pin(tx.conn, name, member.queue, True)
    audit.record(tx, audit.NOBODY, "pool.pinned", name, version=member.version.name)
    return get(tx, name)


def unpin(tx: Transaction, name: str, version: str) -> Pool:
    """Let a version take its turns as others do; what was asked to be woken is not any more. Raises NotFound."""
    _, member = _of(tx, name, version)
    pools.pin(tx.conn, name, member.queue, False)
    audit.record(tx, audit.NOBODY, "pool.unpinned", name, version=member.version.name)
    return get(tx, name)


def unfit(tx: Transaction, name: str, queue: str, reason: str | None) -> None:
    """Note why a version can't be started in a pool: it is left out until an operator wakes or pins it there.

    None: it could be after all.
    """
    pools.unfit(tx.conn, name, queue, None if reason is None else reason[:1_000])
    if reason is not None:
        audit.record(tx, audit.NOBODY, "pool.unfit", name, version=queue, reason=reason[:200])


def _of(tx: Transaction, name: str, version: str) -> tuple[Pool, PoolMember]:
    lock(tx, name)
    pool = get(tx, name)
    member = pool.member(_named(tx, version).queue)
    if member is None:
        there = ", ".join(one.version.name for one in pool.members)
        raise NotFound("version", f"{version}, in pool {name}, which has {there}", param="version")
    return pool, member


def _all_pinned(pool: Pool, member: PoolMember) -> str:
    """Who has all the places for good that a version could have; empty if one is left."""
    pinned = [one.version.name for one in pool.members if one.pinned and one.queue != member.queue]
    return " and ".join(pinned) if len(pinned) >= pool.terms.awake else ""


def _named(tx: Transaction, asked: str) -> Version:
    """A version by any name that a request may give it; raises NotFound, and BadRequest for one that is retired."""
    try:
        target = registry.of(tx, asked).heaviest(asked)
    except UnknownTarget as error:
        if error.code == "version_retired":
            raise BadRequest(error.message, param="version", code=error.code) from None
        raise NotFound("version", asked, param="version", code=error.code) from None
    queue = target.adapter.id if target.adapter else target.queue
    found = versions.of_queue(tx.conn, queue)
    if found is None:
        told = f"{asked}: it has no version yet, `penstock models add {asked} --source …` gives it one"
        raise NotFound("version", told, param="version", code="version_not_found")
    return found


def _member(tx: Transaction, wanted: WantedMember) -> PoolMember:
    version = _named(tx, wanted.version)
    if why := rules.why_no_member(version):
        raise BadRequest(why, param="versions")
    if versions.keep(tx.conn, [(version.model, version.number)]):
        raise BadRequest(f"{version.name} is retired.", param="versions")
    return PoolMember(version, wanted.on_demand, memory_bytes=wanted.memory_bytes)


def _once(members: tuple[PoolMember, ...]) -> tuple[PoolMember, ...]:
    if len({one.queue for one in members}) < len(members):
        raise BadRequest("A version is named twice.", param="versions")
    return members


def _dedicated(pool: Pool) -> Pool:
    """All versions of a dedicated pool are awake."""
    if pool.kind is PoolKind.SHARED:
        return pool
    return replace(pool, terms=replace(pool.terms, awake=max(1, len(pool.members))))


def _check_words(**given: str) -> None:
    for param, words in given.items():
        if len(words) > _MOST_CHARACTERS or not (words.isprintable() or words == ""):
            raise BadRequest(f"{param} has at most {_MOST_CHARACTERS} printable characters.", param=param)


def _views(tx: Transaction, found: list[Pool], settings: DispatchSettings) -> list[PoolView]:
    hosts = pools.hosts(tx.conn, [one.name for one in found], gone=_gone(settings))
    queues = sorted({member.queue for one in found for member in one.members})
    tokens: dict[str, int] = {}
    for work in situations.work(tx.conn, queues) if queues else ():
        tokens[work.queue] = tokens.get(work.queue, 0) + round(work.tokens)
    return [
        PoolView(
            one, tuple(hosts.get(one.name, ())), {member.queue: tokens.get(member.queue, 0) for member in one.members}
        )
        for one in found
    ]


def _gone(settings: DispatchSettings) -> timedelta:
    return timedelta(seconds=settings.worker_gone_seconds)
