"""Reuse: equal lines of a slice that have one answer are asked once, and answers are shared by way of the cache.

A leader's followers ride in its slice, and their records are written beside its own: all of them are in one segment,
or none is. Only an end that is the request's own is theirs too: an answer, or a refusal that would come again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.domain.reuse import CacheMode
from penstock.domain.slice import Claim
from penstock.formats import output
from penstock.formats.canonical import fingerprint
from penstock.formats.input import Line
from penstock.formats.output import Record
from penstock.wire.cache import Cache, Entry, key_of
from penstock_worker.ask import Outcome, OutcomeKind, is_passing


@dataclass(frozen=True, slots=True)
class Group:
    """A leader and its followers, in the order of the plan."""

    lines: list[Line]
    fingerprint: bytes | None = None
    """None if its request may be answered otherwise the next time, or nobody wants to know."""


def each(lines: Iterable[Line]) -> list[Group]:
    """Every line by itself, whatever it asks."""
    return [Group([line]) for line in lines]


def grouped(lines: Iterable[Line], dedup: bool) -> list[Group]:
    """Equal lines that have one answer together, each group at its first line's place; else every line by itself."""
    groups: list[Group] = []
    of: dict[bytes, Group] = {}
    for line in lines:
        known = fingerprint(line.url, line.body)
        if known is not None and known in of:
            of[known].lines.append(line)
            continue
        groups.append(Group([line], known))
        if dedup and known is not None:
            of[known] = groups[-1]
    return groups


def reuse(claim: Claim, lines: Sequence[Line], shelf: Shelf | None) -> tuple[list[Record], list[Group]]:
    """Records of those whose answer is in the cache, and the others, equal ones together, which are to be asked."""
    if not claim.reuse.dedup and claim.reuse.cache is CacheMode.OFF:
        return [], each(lines)
    groups = grouped(lines, claim.reuse.dedup)
    if shelf is None:
        return [], groups
    taken, left = shelf.take(claim, groups)
    records = [
        output.answered(claim.batch, line.number, line.custom_id, 200, None, body, reused=True)
        for group, body in taken
        for line in group.lines
    ]
    return records, left


def is_theirs_too(outcome: Outcome) -> bool:
    """Whether equal requests would end so as well."""
    return outcome.kind is not OutcomeKind.TIMED_OUT and not is_passing(outcome.status)


class Shelf:
    """A worker's place at the shared cache: it takes and gives answers of engines that would answer alike."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self.revision = ""
        """Of the engine that runs; empty if it is not known, and then the shelf is."""

    def take(self, claim: Claim, groups: Sequence[Group]) -> tuple[list[tuple[Group, bytes]], list[Group]]:
        """Those whose answer is there, with it, and those that must be asked."""
        if claim.reuse.cache is not CacheMode.ON or not self.revision:
            return [], list(groups)
        lasting = [group for group in groups if group.fingerprint is not None]
        found = self._cache.get([self._key(claim, group.fingerprint or b"") for group in lasting])
        there = {id(group): body for group, body in zip(lasting, found, strict=True) if body is not None}
        taken = [(group, there[id(group)]) for group in lasting if id(group) in there]
        return taken, [group for group in groups if id(group) not in there]

    def give(self, claim: Claim, group: Group, outcome: Outcome) -> None:
        """Store an answer that lasts, soon."""
        wanted = claim.reuse.cache is not CacheMode.OFF and group.fingerprint is not None and self.revision
        if wanted and outcome.kind is OutcomeKind.ANSWERED:
            key = self._key(claim, group.fingerprint or b"")
            self._cache.keep(Entry(key, outcome.body, claim.reuse.ttl_seconds))

    def _key(self, claim: Claim, fingerprint: bytes) -> bytes:
        return key_of(claim.tenant, claim.model, self.revision, fingerprint)
