"""Why a batch waits: what stands before it, with its numbers, and one sentence for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from penstock.domain.work.batch_words import many, roughly
from penstock.domain.work.lane import Lane

Reason = Literal["no_worker", "asleep", "no_io_worker", "paused", "budget", "lane", "tenants", "earlier"]


@dataclass(frozen=True)
class WhyWaiting:
    """Why an open batch makes no progress.

    `no_worker`: no live worker serves these models · `asleep`: theirs share machines, and their turn comes ·
    `no_io_worker`: nobody validates or assembles · `paused` by its tenant · `budget`: paused, since it is spent ·
    nothing of it runs yet, since before it are more urgent lanes (`lane`: the one with the most tokens), other tenants'
    fair share of its lane (`tenants`), or its tenant's own earlier deadlines (`earlier`).
    """

    reason: Reason
    models: tuple[str, ...] = ()
    told: str | None = None
    """What is before it, where a version is asleep."""
    lane: Lane | None = None
    tokens: int | None = None
    """What stands before it, where that is other work."""
    seconds: float | None = None
    """How long that takes at the speed of now; None where it was not measured."""

    @property
    def sentence(self) -> str:
        """For people; no other tenant is named in it."""
        about = "" if self.seconds is None else f", about {roughly(self.seconds)}"
        tokens = many(self.tokens or 0)
        match self.reason:
            case "no_worker":
                return f"No live worker serves {', '.join(self.models)}"
            case "asleep":
                return self.told or f"{', '.join(self.models)} is asleep"
            case "no_io_worker":
                return "No io worker is live"
            case "paused":
                return "Paused: it goes on when it is resumed"
            case "budget":
                return "Paused: this month's budget is spent"
            case "lane":
                return f"Behind {tokens} tokens of the lane {self.lane}{about}"
            case "tenants":
                return f"Behind {tokens} tokens of other tenants, who have their share of its lane{about}"
            case "earlier":
                return f"Behind {tokens} tokens of your own with earlier deadlines{about}"
