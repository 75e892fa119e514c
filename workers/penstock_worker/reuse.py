"""Reuse: equal lines of a slice that have one answer are asked once; the others end as their leader ended.

A leader's followers ride in its slice, and their records are written beside its own: all of them are in one segment,
or none is. Only an end that is the request's own is theirs too: an answer, or a refusal that would come again.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock.formats.canonical import fingerprint
from penstock.formats.input import Line
from penstock_worker.ask import Outcome, OutcomeKind, is_passing

Group = list[Line]
"""A leader and its followers, in the order of the plan."""


def grouped(lines: Iterable[Line], dedup: bool) -> list[Group]:
    """Equal lines that have one answer together, each group at its first line's place; else every line by itself."""
    if not dedup:
        return [[line] for line in lines]
    groups: list[Group] = []
    of: dict[bytes, Group] = {}
    for line in lines:
        known = fingerprint(line.url, line.body)
        if known is not None and known in of:
            of[known].append(line)
            continue
        group = [line]
        groups.append(group)
        if known is not None:
            of[known] = group
    return groups


def is_theirs_too(outcome: Outcome) -> bool:
    """Whether equal requests would end so as well."""
    return outcome.kind is not OutcomeKind.TIMED_OUT and not is_passing(outcome.status)
