"""Versions: added by an operator or registered by a worker that starts with one; served; retired."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from penstock.domain.api_errors import BadRequest, Conflict, NotFound
from penstock.domain.engines.profiles import PROFILES
from penstock.domain.models.alias import Split
from penstock.domain.models.name import check_name
from penstock.domain.models.tuning import Tuning
from penstock.domain.models.version import STABLE, Definition, Version, VersionState, has_password, label, number_of
from penstock.domain.work.holder import Holder
from penstock.service.core import audit
from penstock.service.core.transaction import Transaction
from penstock.service.models import demands
from penstock.settings.dispatch import DispatchSettings
from penstock.store.fleet import models
from penstock.store.models import aliases, ensembles, tunings, versions
from penstock.store.models import repin as pins
from penstock.store.pools import pools

_MOST_NAMED: Final = 5
_MOST_ARGUMENTS: Final = 200
_MOST_CHARACTERS: Final = 4_000


@dataclass(frozen=True)
class VersionView:
    """A version, how many live workers serve it, and which aliases stand for it."""

    version: Version
    workers: int
    aliases: dict[str, int]
    """Weights by alias."""
    tunings: Sequence[Tuning] = ()
    """How fast it was measured to be, by device, the fastest first."""


def serve(
    tx: Transaction,
    holder: Holder,
    definition: Definition,
    revision: str,
    *,
    promoted: bool = False,
    wanted: int | None = None,
    gone: timedelta = timedelta(0),
) -> Version:
    """The version that a worker serves whose engine is ready, made if there is none: the worker's work is its queue's.

    `revision` is the engine's, empty if it can't be known: then the definition stands for it. The first version of a
    name becomes its `stable`. `promoted`: so does this one, unless another machine's worker serves what that stands
    for or it has not shown what is demanded, and it takes over what waits for versions that no other machine serves (of
    which nothing was heard for `gone`). `wanted`: a pool's host started this version; it is that one, unless what it
    stands for has changed since it was served first. Raises Conflict if the version is retired, or the name is a
    version's.
    """
    assert holder.model is not None, "only gpu workers serve"
    model = holder.model
    models.add(tx.conn, model, "registered")
    if not versions.lock_name(tx.conn, model):
        message = (
            f"{model!r} is a version itself: start its worker under the model's name, {model.rpartition('@')[0]!r}."
        )
        raise Conflict("a version", "served", message)
    left: list[str] = []
    version, digest = _meant(tx, model, definition, revision or _declared(definition), wanted)
    if version is None:
        version = versions.insert(tx.conn, model, definition, registered=True)
        audit.record(tx, audit.NOBODY, "model_version.registered", version.name, source=definition.source)
    if version.state is VersionState.RETIRED:
        raise Conflict(version.state, "served", f"This is {version.name}, which is retired: start another version.")
    if version.state is VersionState.DRAFT:
        versions.served(tx.conn, version, digest)
    left = _stand_for(tx, version, holder.host, gone, promoted=promoted)
    versions.serve(tx.conn, holder.id, version)
    if left:
        pins.take_over(tx.conn, version, left)
    return version


def _meant(
    tx: Transaction, model: str, definition: Definition, digest: str, wanted: int | None
) -> tuple[Version | None, str]:
    """The version that a worker whose engine has this digest serves, and the digest that it has then.

    A digest is one version's. Another one that is to be served for its arguments, and answers alike, has one that names
    it, too.
    """
    same = versions.by_digest(tx.conn, model, digest)
    own = None if wanted is None else versions.find(tx.conn, model, wanted)
    if own is not None and own != same:
        named = f"{digest}+{own.label}"
        if own.digest in (None, named):
            return own, digest if same is None else named
    return same or versions.unserved(tx.conn, model, definition), digest


def promote_here(tx: Transaction, version: Version, host: str, gone: timedelta) -> None:
    """Let its name stand for a version that this machine is about to serve, as for a worker that is promoted."""
    versions.lock_name(tx.conn, version.model)
    if left := _stand_for(tx, version, host, gone, promoted=True):
        pins.take_over(tx.conn, version, left)


def _stand_for(tx: Transaction, version: Version, host: str, gone: timedelta, *, promoted: bool) -> list[str]:
    """Let its name stand for a version, if it is the first or `promoted`; the queues whose work it takes over."""
    model, left = version.model, list[str]()
    now = next((one for one in aliases.latest(tx.conn, model) if one.alias == STABLE), None)
    stable, demand = (now.split, now.demand) if now else (None, None)
    split = Split.of({version.number: 100})
    if promoted:
        promoted, left = _alone(tx, host, version, stable, gone)
        promoted = promoted and demands.is_met(tx, model, demand, stable.weights if stable else {}, split)
    if stable is None or (promoted and stable != split):
        reason = "promoted by its worker" if stable else "the first version that was served"
        aliases.change(tx.conn, model, STABLE, split, demand=demand, actor=tx.actor, reason=reason)
    return left if promoted else []


def _alone(
    tx: Transaction, host: str, version: Version, stable: Split | None, gone: timedelta
) -> tuple[bool, list[str]]:
    """Whether no other machine serves what the name stands for, and the queues that none serves."""
    others = {one.number: one.queue for one in versions.of_model(tx.conn, version.model) if one != version}
    live = versions.live_workers(tx.conn, list(others.values()), gone=gone, but=host)
    meant = stable.weights if stable else ()
    alone = not any(others.get(number) in live for number in meant)
    return alone, [queue for queue in others.values() if queue not in live]


def _declared(definition: Definition) -> str:
    """A digest of what can only be known by its name."""
    told = json.dumps([definition.engine, definition.source, *definition.arguments])
    return "declared:" + hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def add(tx: Transaction, model: str, definition: Definition) -> Version:
    """Add a version that no worker serves yet; the same again is the same version.

    It gets no requests until an alias stands for it, but by `name@v3`. Raises BadRequest.
    """
    check(model, definition)
    models.add(tx.conn, model, "added")
    if not versions.lock_name(tx.conn, model):
        raise BadRequest(f"{model!r} is a version itself.", param="model")
    if any(one.definition.base for one in versions.of_model(tx.conn, model)):
        raise BadRequest(f"{model!r} is an adapter's name: say its base, or another name.", param="model")
    if same := versions.unserved(tx.conn, model, definition):
        return same
    version = versions.insert(tx.conn, model, definition, registered=False)
    audit.record(tx, audit.NOBODY, "model_version.added", version.name, source=definition.source)
    return version


def check(model: str, definition: Definition) -> None:
    """Raise BadRequest for what is too long to keep, can't be shown, must not be, or is no engine."""
    check_name(model)
    if not 0 < len(definition.source) <= _MOST_CHARACTERS or not definition.source.isprintable():
        raise BadRequest(f"source has 1 to {_MOST_CHARACTERS} printable characters.", param="source")
    if has_password(definition.source):
        raise BadRequest("A password in an address would be read by all: leave it out of the source.", param="source")
    if definition.engine not in PROFILES:
        message = f"No engine is called {definition.engine[:40]!r}; there are {', '.join(PROFILES)}."
        raise BadRequest(message, param="engine")
    arguments = definition.arguments
    if len(arguments) > _MOST_ARGUMENTS or not all(
        len(one) <= _MOST_CHARACTERS and "".join(one.split()).isprintable() for one in arguments
    ):
        message = f"At most {_MOST_ARGUMENTS} arguments of {_MOST_CHARACTERS} characters each, which can be printed."
        raise BadRequest(message, param="arguments")


def get(tx: Transaction, model: str, number: int) -> Version:
    """One version; raise NotFound (`model_not_found`, `version_not_found`)."""
    found = versions.find(tx.conn, model, number)
    if found is None:
        check_known(tx, model)
        raise NotFound("version", f"{model}@{label(number)}", param="version", code="version_not_found")
    return found


def check_known(tx: Transaction, model: str) -> None:
    """Raise NotFound for a name that is no model's."""
    if not models.names_among(tx.conn, [model]):
        raise NotFound("model", model, param="model", code="model_not_found")


def of_queue(tx: Transaction, queue: str) -> Version | None:
    """The version whose work this queue's is; None if there is none."""
    return versions.of_queue(tx.conn, queue)


def named(tx: Transaction, name: str) -> Version:
    """The version that `name@v3` names; raise NotFound, or BadRequest for another name."""
    model, at, after = name.rpartition("@")
    number = number_of(after) if at else None
    if number is None:
        raise BadRequest(f"A version is named like chat@v3, not {name[:200]!r}.", param="version")
    return get(tx, model, number)


def page(
    tx: Transaction,
    settings: DispatchSettings,
    *,
    model: str | None = None,
    after: str | None = None,
    limit: int,
    allowed: frozenset[str] | None = None,
) -> list[VersionView]:
    """Versions (of one model, of those `allowed`) by model and number, after the one named; raise NotFound."""
    if model is not None:
        check_known(tx, model)
    place = None
    if after is not None:
        last = named(tx, after)
        place = (last.model, last.number)
    return _views(tx, versions.page(tx.conn, model, allowed=allowed, after=place, limit=limit), settings)


def view(tx: Transaction, name: str, settings: DispatchSettings) -> VersionView:
    """The version that `name@v3` names, and what stands for it; raise NotFound."""
    return _views(tx, [named(tx, name)], settings)[0]


def _views(tx: Transaction, found: list[Version], settings: DispatchSettings) -> list[VersionView]:
    gone = timedelta(seconds=settings.worker_gone_seconds)
    workers = versions.live_workers(tx.conn, [one.served_as for one in found], gone=gone)
    only = found[0].model if len({one.model for one in found}) == 1 else None
    weights: dict[tuple[str, int], dict[str, int]] = {}
    for change in aliases.latest(tx.conn, only):
        for number, weight in (change.split.weights if change.split else {}).items():
            weights.setdefault((change.model, number), {})[change.alias] = weight
    tuned = tunings.of_versions(tx.conn, [one.queue for one in found])
    return [
        VersionView(
            one,
            workers.get(one.served_as, 0),
            weights.get((one.model, one.number), {}),
            tuned.get(one.queue, ()),
        )
        for one in found
    ]


def retire(tx: Transaction, name: str) -> Version:
    """Let nobody ask a version any more. Retired again it is the same answer.

    Raises NotFound, or Conflict (`version_in_use`) while an alias stands for it, a pool may serve it, an ensemble has
    it as a member, or open work is pinned to it.
    """
    version = named(tx, name)
    versions.lock_name(tx.conn, version.model)
    version = get(tx, version.model, version.number)
    if version.state is VersionState.RETIRED:
        return version
    used = [
        one.alias for one in aliases.latest(tx.conn, version.model) if one.split and version.number in one.split.weights
    ]
    if used:
        told = " and ".join(f"{version.model}@{alias}" for alias in used)
        message = f"{told} stands for {version.name}: let it stand for another version first."
        raise Conflict(version.state, "retired", message, code="version_in_use")
    if made_of_it := ensembles.with_member(tx.conn, version.name):
        message = f"{version.name} is a member of {' and '.join(made_of_it[:_MOST_NAMED])}: add those without it first."
        raise Conflict(version.state, "retired", message, code="version_in_use")
    hanging = versions.hanging(tx.conn, version, limit=_MOST_NAMED)
    if hanging:
        told = ", ".join(one.name for one in hanging)
        message = f"Adapters hang on {version.name} ({told}): retire them first."
        raise Conflict(version.state, "retired", message, code="version_in_use")
    serving = pools.serving(tx.conn, version.queue, limit=_MOST_NAMED)
    if serving:
        message = f"{version.name} is one of the versions of pool {' and '.join(serving)}: take it out first."
        raise Conflict(version.state, "retired", message, code="version_in_use")
    open = versions.open_batches(tx.conn, version, limit=_MOST_NAMED + 1)
    if open:
        told = ", ".join(open[:_MOST_NAMED] + ["…"] * (len(open) > _MOST_NAMED))
        message = f"Open work is pinned to {version.name} ({told}): let it end, cancel it, or repin it."
        raise Conflict(version.state, "retired", message, code="version_in_use")
    versions.retire(tx.conn, version)
    audit.record(tx, audit.NOBODY, "model_version.retired", version.name)
    return get(tx, version.model, version.number)
