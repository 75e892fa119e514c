"""A pack: alike lines of a slice that go to the engine as one request with many inputs; a line alone is one, too.

It comes apart into an outcome a line, as if each had been asked alone. Where it does not, its halves are asked, down
to a single line, which ends as any line does: so what is wrong with one input is told that line alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from penstock.formats import list_request
from penstock.formats.input import Line
from penstock.formats.list_request import OneInput
from penstock_worker.engine.token_counter import TokenCounter
from penstock_worker.slices.line_request import Outcome, OutcomeKind, is_passing
from penstock_worker.slices.reuse import Group


@dataclass(frozen=True, slots=True)
class Pack:
    """Leaders that are asked together, each with its followers."""

    groups: Sequence[Group]
    tokens: Sequence[tuple[int, ...]] = ()
    """How many each leader's input may be; known if there are several."""
    in_base64: bool = False
    """What vectors its lines want."""

    @property
    def lines(self) -> list[Line]:
        """Those that are asked."""
        return [group.lines[0] for group in self.groups]

    def asked(self) -> Line:
        """What is asked, as one line; made anew each time, since it is as large as all of them."""
        first, *others = self.lines
        return replace(first, body=list_request.joined([first.body, *(o.body for o in others)])) if others else first

    def parts(self, most: int) -> list[Pack]:
        """Cut into packs of at most so many lines."""
        return [self._part(start, start + most) for start in range(0, len(self.groups), most)]

    def cut(self, most_lines: int, most_tokens: int) -> list[Pack]:
        """Cut into packs of at most so many lines and so many tokens, but for a single line's own."""
        starts, inside = [0], 0
        for place, count in enumerate(map(max, self.tokens)):
            if place > starts[-1] and (place - starts[-1] == most_lines or inside + count > most_tokens):
                starts.append(place)
                inside = 0
            inside += count
        return [self._part(start, end) for start, end in pairwise([*starts, len(self.groups)])]

    def _part(self, start: int, end: int) -> Pack:
        return replace(self, groups=self.groups[start:end], tokens=self.tokens[start:end])

    def apart(self, outcome: Outcome) -> list[Outcome | None] | None:
        """How each of its lines ended that were answered together; None if that can't be told, of one or of all."""
        if outcome.kind is not OutcomeKind.ANSWERED:
            return None
        bodies = list_request.apart(outcome.body, self.tokens, in_base64=self.in_base64)
        if bodies is None:
            return None
        return [
            None if body is None else replace(outcome, body=body, request_id=f"{outcome.request_id}-{place}")
            for place, body in enumerate(bodies)
        ]

    def after(self, outcome: Outcome | None) -> list[Pack]:
        """What is asked once it ended so, and could not be taken apart.

        Halves if the engine refused it for what is in it. Else nothing is known of one line or the other: each alone.
        """
        refused = outcome is not None and outcome.kind in (OutcomeKind.REFUSED, OutcomeKind.TOO_LARGE)
        if outcome is None or not refused or is_passing(outcome.status):
            return self.parts(1)
        return self.parts((len(self.groups) + 1) // 2)


def packed(groups: Sequence[Group], counter: TokenCounter | None, most_lines: int, most_tokens: int) -> list[Pack]:
    """Packs of all groups: those that are alike together, in their order, and each other one alone.

    A pack has at most so many lines, and so many tokens, but for a single line's own.
    """
    alike: dict[bytes, list[tuple[Group, OneInput]]] = {}
    alone: list[Pack] = []
    for group in groups:
        line = group.lines[0]
        one = list_request.read(line.url, line.body) if counter is not None and most_lines > 1 else None
        if one is None:
            alone.append(Pack([group]))
        else:
            alike.setdefault(one.kind, []).append((group, one))
    packs: list[Pack] = []
    for found in alike.values():
        tokens = counter.of([one.texts for _, one in found]) if counter is not None and len(found) > 1 else None
        if tokens is None:
            alone += [Pack([group]) for group, _ in found]
        else:
            whole = Pack([group for group, _ in found], tokens, found[0][1].in_base64)
            packs += whole.cut(most_lines, most_tokens)
    return packs + alone
