"""Reuse: equal lines of a slice that have one answer are asked once, and answers are shared by way of the cache.

A leader's followers ride in its slice, and their records are written beside its own: all of them are in one segment,
or none is. Only an end that is the request's own is theirs too: an answer, or a refusal that would come again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from penstock.domain.reuse import CacheMode, ReuseSource
from penstock.domain.work.slice import Claim
from penstock.formats import output
from penstock.formats.canonical import fingerprint
from penstock.formats.input import Line
from penstock.formats.output import Record
from penstock_worker.answer_cache import AnswerCache
from penstock_worker.slices.line_request import Outcome, OutcomeKind, is_passing
from penstock_worker.slices.said import said


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


def reuse(claim: Claim, lines: Sequence[Line], cache: AnswerCache | None) -> tuple[list[Record], list[Group]]:
    """Records of those whose answer is in the cache, and the others, equal ones together, which are to be asked."""
    if not claim.reuse.dedup and claim.reuse.cache is CacheMode.OFF:
        return [], each(lines)
    groups = grouped(lines, claim.reuse.dedup)
    if cache is None:
        return [], groups
    found = cache.find(claim, [group.fingerprint for group in groups if group.fingerprint is not None])
    records = [
        output.answered(
            claim.batch,
            line.number,
            line.custom_id,
            200,
            None,
            said(claim, found[group.fingerprint], "reused"),
            reused=ReuseSource.SHARED,
        )
        for group in groups
        if group.fingerprint in found
        for line in group.lines
    ]
    return records, [group for group in groups if group.fingerprint not in found]


def keep(claim: Claim, group: Group, outcome: Outcome, cache: AnswerCache | None) -> None:
    """Store an answer that lasts for those who ask the same later."""
    if cache is not None and group.fingerprint is not None and outcome.kind is OutcomeKind.ANSWERED:
        cache.keep(claim, group.fingerprint, outcome.body)


def is_theirs_too(outcome: Outcome) -> bool:
    """Whether equal requests would end so as well."""
    return outcome.status > 0 and not is_passing(outcome.status)
