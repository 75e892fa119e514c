"""Plans: the order of the work (service/planning/order.py), and its cuts into slices.

The plan copy holds the input's lines in that order, by model, so that a slice is one byte range of it. Slices are
handed out in their order, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.blobs.store import Blobs
from penstock.domain.fleet.model import ModelFacts
from penstock.domain.fleet.worker import WorkerPace
from penstock.domain.models.registry import ModelTarget
from penstock.domain.work.slice import Cut, FoldCut
from penstock.formats import plan
from penstock.service.models.pins import LineModel
from penstock.service.planning import order
from penstock.service.planning.line_models import LineModels
from penstock.service.planning.order import Beginnings, Numbers
from penstock.service.planning.scan import Scan, asked_line
from penstock.settings.plans import PlanSettings

_LINES_AT_ONCE: Final = 256
"""What an engine that nobody has seen yet takes at once: vLLM's default, often."""
_SLICES_AT_ONCE: Final = 4
"""The slots of a lane feed an engine together: with a quarter of its lines in each slice it is full."""
_LEAST_PART: Final = 10
"""The last slices of a batch that several workers share are no smaller than a tenth of the others."""
_WRITE_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Speed:
    """What the cuts need to know about a model's workers."""

    slice_tokens: float
    """Estimated tokens of a slice that is as long as it should be."""
    workers: int = 1
    lines_at_once: int = _LINES_AT_ONCE
    """All workers together."""
    least_lines: int = 1
    """What a slice holds whatever it costs, so that the few slices that a worker holds fill its engine."""


@dataclass(frozen=True)
class Plan:
    """Lines of a scan in the order of work, as slices: each has lines from one end before it up to its own."""

    found: Scan
    ordered: Numbers
    ends: list[int]


def speed(pace: WorkerPace | None, facts: ModelFacts | None, settings: PlanSettings) -> Speed:
    """How much work a slice should be: so many seconds of what a live worker does, where that is known."""
    pace = pace or WorkerPace()
    tokens = float(settings.slice_tokens)
    if pace.tokens_per_second:
        scale = (facts.tokens_scale if facts else None) or 1.0
        tokens = settings.slice_seconds * pace.tokens_per_second / scale
    workers = max(1, pace.workers)
    at_once = pace.lines_at_once or workers * _LINES_AT_ONCE
    return Speed(tokens, workers, at_once, least_lines=max(1, pace.lines_at_once // workers // _SLICES_AT_ONCE))


def make(found: Scan, speeds: Mapping[LineModel, Speed], settings: PlanSettings, *, reorder: bool = True) -> Plan:
    """Order the lines and cut them: a slice has one model, and at most so many lines, bytes and estimated tokens.

    Without `reorder` the lines of a model stay in file order.
    """
    model_of = np.frombuffer(found.model_of, dtype=np.uint16)
    longest = np.frombuffer(found.longest, dtype=np.uint32)
    tokens = np.frombuffer(found.tokens, dtype=np.uint32)
    lengths = np.frombuffer(found.lengths, dtype=np.uint32)
    begin = Beginnings.of(found.beginnings, found.beginning_counts)
    follows = found.leaders != np.arange(len(found.leaders))
    parts, ends, done = [], [], 0
    for model, name in enumerate(found.models):
        members = np.flatnonzero(model_of == model)
        ordered = members
        if reorder:
            asked = members[~follows[members]]
            ordered = order.by_prefix(asked, begin, order.classes(longest, asked))
            ordered = order.in_time(ordered, longest, order.shared(ordered, begin), speeds[name].lines_at_once)
            ordered = order.with_followers(ordered, found.leaders, members)
        shares = order.shared(ordered, begin)
        shares[follows[ordered]] = order.TWIN
        ends += [done + end for end in cut(tokens[ordered], lengths[ordered], shares, speeds[name], settings)]
        parts.append(ordered)
        done += len(ordered)
    return Plan(found, np.concatenate(parts) if parts else np.empty(0, dtype=np.int64), ends)


def cut(
    tokens: NDArray[np.uint32],
    lengths: NDArray[np.uint32],
    shares: NDArray[np.uint8],
    speed: Speed,
    settings: PlanSettings,
) -> Iterator[int]:
    """Where the slices of ordered lines of one model end.

    In its last quarter a slice ends where its neighbours share least, so that few prompts are in two slices. Where
    several workers share a batch the last slices get smaller, so that all workers end at about the same time.
    """
    until_tokens = np.r_[0, np.cumsum(tokens, dtype=np.int64)]
    until_bytes = np.r_[0, np.cumsum(lengths, dtype=np.int64)]
    begin, total = 0, len(tokens)
    while begin < total:
        most = speed.slice_tokens
        if speed.workers > 1:
            left = until_tokens[-1] - until_tokens[begin]
            most = max(most / _LEAST_PART, min(most, left / (2 * speed.workers)))
        end = int(np.searchsorted(until_tokens, until_tokens[begin] + most, side="right")) - 1
        end = max(end, begin + min(speed.least_lines, -(-(total - begin) // speed.workers)))
        most_bytes = int(np.searchsorted(until_bytes, until_bytes[begin] + settings.slice_bytes, side="right")) - 1
        end = max(begin + 1, min(end, begin + settings.slice_lines, most_bytes, total))
        if end < total:
            near_full = np.arange(begin + max(1, -(-(end - begin) * 3 // 4)), end + 1)
            end = int(near_full[::-1][np.argmin(shares[near_full][::-1])])
        yield end
        begin = end


def write(path: Path, made: Plan, blobs: Blobs, key: str, models: LineModels | None = None) -> list[Cut | FoldCut]:
    """Write the plan copy; the slices' rows, in their order. `models`: what names stand for; else each for itself."""
    cuts: list[Cut | FoldCut] = []
    numbers = np.frombuffer(made.found.numbers, dtype=np.uint32)
    tokens = np.frombuffer(made.found.tokens, dtype=np.uint32)
    with path.open("rb") as file, blobs.writer(key) as copy:
        begin = offset = 0
        for end in made.ends:
            members = made.ordered[begin:end]
            start, pending, pending_bytes = offset, [], 0
            for index in members.tolist():
                framed = plan.frame(made.found.numbers[index], asked_line(file, made.found, index))
                pending.append(framed)
                pending_bytes += len(framed)
                if pending_bytes >= _WRITE_BYTES:
                    offset += copy.write(b"".join(pending))
                    pending, pending_bytes = [], 0
            offset += copy.write(b"".join(pending))
            whole = Cut(
                model="",
                plan_offset=start,
                plan_bytes=offset - start,
                lines=len(members),
                first_line=int(numbers[members].min()),
                last_line=int(numbers[members].max()),
                tokens=int(tokens[members].sum(dtype=np.int64)),
            )
            cuts.append(_for(whole, made.found.models[made.found.model_of[members[0]]], models))
            begin = end
    return cuts


def _for(whole: Cut, line: LineModel, models: LineModels | None) -> Cut | FoldCut:
    """The cut as work of whom its lines ask."""
    made = []
    for name, chosen in zip(line.names, line.members or (None,), strict=True):
        target = models.target(name) if models else ModelTarget(name, name, None)
        made.append(
            replace(
                whole,
                model=target.queue,
                asked=line.asked if target.adapter or line.asked != target.name else None,
                chosen=chosen,
                adapter=target.adapter.id if target.adapter else None,
            )
        )
    return FoldCut(tuple(made)) if line.gathers else made[0]
