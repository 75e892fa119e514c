"""The registry as it stands: what the names of requests mean at this moment."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress

from penstock.domain.models.alias import Split
from penstock.domain.models.registry import Numbered, Registry, UnknownTarget
from penstock.domain.models.version import Version
from penstock.service.core.transaction import Transaction
from penstock.store.fleet import models
from penstock.store.models import aliases, ensembles, versions


def read(tx: Transaction, names: Collection[str] | None = None) -> Registry:
    """All names, versions and aliases; `names`: models that are known to the caller already."""
    numbered: dict[str, dict[int, Numbered]] = {}
    for model, number, version in versions.every(tx.conn):
        numbered.setdefault(model, {})[number] = version
    splits: dict[str, dict[str, Split]] = {}
    for one in aliases.latest(tx.conn):
        if one.split is not None:
            splits.setdefault(one.model, {})[one.alias] = one.split
    known = models.every_name(tx.conn) if names is None else names
    return Registry(known, numbered, splits, ensembles.latest(tx.conn))


def of(tx: Transaction, asked: str) -> Registry:
    """What must be known to say what one request's model stands for; of an ensemble, what its members and judge do."""
    found = ensembles.latest(tx.conn, [asked])
    members = [member.model for one in found.values() for member in one.definition.asked]
    every = [asked, *members]
    names = models.names_among(tx.conn, [*every, *(one.rpartition("@")[0] for one in every)])
    numbered: dict[str, dict[int, Numbered]] = {}
    splits: dict[str, dict[str, Split]] = {}
    for known in names:
        numbered[known] = {one.number: _numbered(one) for one in versions.of_model(tx.conn, known)}
        splits[known] = {one.alias: one.split for one in aliases.latest(tx.conn, known) if one.split is not None}
    return Registry(names, numbered, splits, found)


def _numbered(one: Version) -> Numbered:
    base = one.definition.base
    return Numbered(one.queue, one.state, base, one.digest if base else None)


def heaviest(tx: Transaction, names: Iterable[str]) -> dict[str, str]:
    """Whose work lines would be, by what they ask: of an alias the version with the largest share."""
    now, queues = read(tx), {}
    for asked in names:
        with suppress(UnknownTarget):
            queues[asked] = now.heaviest(asked).queue
    return queues
