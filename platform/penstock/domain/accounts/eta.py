"""ETA: when a batch will have its answers, from the tokens that are left of it and those that go before them.

Tokens, not lines: lines differ, and what a worker does in a second is measured in tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

# A rate is measured over a minute or so and stands for hours: waiting calls come and go, answers get longer or
# shorter. How much slower or faster it may go than that is a choice, not a measurement.
SLOWER: Final = 0.7
FASTER: Final = 1.3

Unknown = Literal["not_measured", "no_worker", "asleep", "paused"]


@dataclass(frozen=True)
class ExpectedPart:
    """What stands between now and the end of a batch for one of its models. Tokens are as the engine counts them."""

    model: str
    tokens: float
    """Left of the batch itself."""
    above: float
    """Before it, in more urgent lanes, of everybody."""
    sooner: float
    """Before it, of its own tenant in its lane: they run, or their deadline is earlier."""
    rivals: float
    """What other tenants have of its lane meanwhile, by their weights."""
    tokens_per_second: float
    """The rate that is taken for all of it."""
    wake_seconds: float = 0.0
    """Until its version is awake, in a pool whose versions take turns."""


@dataclass(frozen=True)
class Expectation:
    """When a batch is expected to have its answers, and between when; without times, `reason` says why not."""

    expected_at: datetime | None = None
    earliest_at: datetime | None = None
    latest_at: datetime | None = None
    meets_deadline: bool | None = None
    """Whether what is expected comes before the deadline."""
    reason: Unknown | None = None
    """`no_worker`: no live worker serves one of its models · `asleep`: the version of one is asleep in its pool, and
    nobody can say when it wakes · `not_measured`: those have not answered enough yet to know how fast they are, and
    nobody has tuned them · `paused`: it goes on when it is resumed."""
    parts: tuple[ExpectedPart, ...] = ()
    """Of each model, the slowest first; none with a `reason`."""


@dataclass(frozen=True)
class Rival:
    """Another tenant's open work in the same lane."""

    tokens: float
    weight: float
    """Its weight over the own tenant's: how many of its tokens are served for each of ours."""


@dataclass(frozen=True)
class OpenWork:
    """What is left of a batch for one model, and the work beside it. All tokens are as the engine counts them."""

    tokens: float
    lines: int
    above: float
    """Tokens in more urgent lanes, of everybody."""
    sooner: float
    """The own tenant's tokens in the same lane that are taken before these: they run, or their deadline is earlier."""
    beside: float
    """All of the own tenant's other tokens in the same lane, `sooner` included."""
    rivals: Sequence[Rival]
    tokens_per_second: float
    """Of all live workers of the model together."""
    lines_at_once: int
    """How many lines those have in their engines when they are full."""
    wake_seconds: float = 0.0
    """Until its version is awake, in a pool whose versions take turns: what is ahead, and the switch."""
    switch_seconds: float = 0.0
    """Of those, what the switch alone takes."""

    @property
    def shared(self) -> float:
        """Tokens that other tenants have of the lane until this is done: by weight, as long as their work lasts."""
        own = self.sooner + self.tokens
        return sum(min(rival.tokens, own * rival.weight) for rival in self.rivals)

    def part(self, model: str) -> ExpectedPart:
        """What of it is told."""
        return ExpectedPart(
            model, self.tokens, self.above, self.sooner, self.shared, self.tokens_per_second, self.wake_seconds
        )


@dataclass(frozen=True)
class Span:
    """Seconds from now."""

    expected: float
    earliest: float
    latest: float


def span(work: OpenWork, flush_seconds: float) -> Span:
    """When the last answer of this work is recorded.

    Expected: more urgent lanes go first, and in its lane the tenant's earlier deadlines; other tenants have their share
    of the lane meanwhile, by weight, as long as their work lasts. Earliest: nobody goes before it. Latest: everybody in
    its lane and above does. Then comes the time that one line takes in a full engine (Little's law), since the last
    lines run in an engine that empties, and the time until answers are recorded. A version that is asleep is waited for
    first, and stays awake then, as far as is known.
    """
    rate = work.tokens_per_second
    own = work.sooner + work.tokens
    shared = work.shared
    everybody = work.above + work.beside + work.tokens + sum(rival.tokens for rival in work.rivals)
    line_seconds = work.lines_at_once * work.tokens / max(1, work.lines) / rate
    return Span(
        expected=work.wake_seconds + (work.above + own + shared) / rate + flush_seconds,
        earliest=(work.switch_seconds + work.tokens / rate) / FASTER,
        latest=(work.wake_seconds + everybody / rate) / SLOWER + line_seconds + flush_seconds,
    )


def expectation(
    spans: Sequence[Span], now: datetime, deadline: datetime, parts: Sequence[ExpectedPart] = ()
) -> Expectation:
    """A batch has its answers when the slowest of its models has given them."""
    expected, earliest, latest = (
        now + _bounded(max(getattr(one, name) for one in spans)) for name in ("expected", "earliest", "latest")
    )
    return Expectation(expected, earliest, latest, meets_deadline=expected <= deadline, parts=tuple(parts))


def _bounded(seconds: float) -> timedelta:
    """At most ten years: a worker that was slow once is no reason to overflow a date."""
    return timedelta(seconds=min(seconds, 10 * 365 * 86_400))
