"""Words about an estimate as the API has it: when a batch would be done in a lane, and what it would cost."""

from __future__ import annotations

import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from markupsafe import Markup

from penstock.console import words
from penstock.domain.api_errors import BadRequest
from penstock.domain.work.batch import parse_window

_MOST_WINDOW_SECONDS: Final = 10**9
"""The API knows its own bound, and has said so before this is asked."""

_LEAST_SHOWN: Final = Decimal("0.0001")

_WHY_NO_TIME: Final = {
    "not_measured": "No time can be told yet: this model's speed was not measured so far.",
    "no_worker": "No time can be told: no worker serves this model now. It waits until one does.",
    "asleep": "No time can be told: the model is asleep, and wakes when its pool has room for it.",
    "paused": "No time can be told: the model is paused.",
}

_HOW_READ: Final = {
    "tokenizer": "by the model's own tokenizer",
    "measured": "by the bytes a token that its earlier lines had",
    "assumed": "by an assumed number of bytes a token",
}
_HOW_WRITTEN: Final = {
    "measured": "by its earlier answers",
    "limits": "by what the lines allow at most",
    "none": "none: these answers are numbers",
}


def how_read(basis: str) -> str:
    """How the input's tokens were counted."""
    return _HOW_READ.get(basis, basis)


def how_written(basis: str) -> str:
    """How the answers' tokens were reckoned."""
    return _HOW_WRITTEN.get(basis, basis)


@dataclass(frozen=True)
class LaneOutlook:
    """What a batch would take in one lane; `estimate` is the API's."""

    lane: str
    window: str
    estimate: dict[str, Any]

    @property
    def seconds(self) -> dict[str, float] | None:
        """From, expected, to."""
        found: dict[str, float] | None = self.estimate["seconds"]
        return found

    @property
    def why_no_time(self) -> str:
        """Why there is none."""
        reason = self.estimate["reason"]
        return _WHY_NO_TIME.get(reason, "No time can be told.")

    @property
    def status(self) -> str:
        """Good, bad, or nothing that is known."""
        return {True: "good", False: "bad", None: ""}[self.estimate["meets_deadline"]]

    @property
    def verdict(self) -> Markup:
        """`done by 14:20 UTC (between … and …), 2 h 5 min before the window ends`."""
        assert self.seconds is not None
        now = time.time()
        low, expected, high = (words.clock(now + self.seconds[name]) for name in ("low", "expected", "high"))
        is_short = self.seconds["high"] - self.seconds["low"] < 60
        between = Markup("") if is_short else Markup(", between {} and {}").format(low, high)
        return Markup("Done by {}{}{}.").format(expected, between, self._against_window())

    def _against_window(self) -> str:
        assert self.seconds is not None
        try:
            window = parse_window(self.window, _MOST_WINDOW_SECONDS).total_seconds()
        except BadRequest:
            return ""
        spare = window - self.seconds["expected"]
        side = "before" if spare >= 0 else "after"
        return f"; {words.duration(abs(spare))} {side} the window ends"

    @property
    def costs(self) -> str:
        """By tokens and by GPU together."""
        return self._money("expected")

    @property
    def costs_between(self) -> str:
        """The least and the most of it; empty if there is no price, or no difference."""
        low, high = self._money("low"), self._money("high")
        return f"{low} to {high}" if low != high else ""

    def _money(self, name: str) -> str:
        cost = self.estimate["cost"]
        if cost is None:
            return "–"
        parts = (Decimal(cost[kind][name]) for kind in ("tokens", "gpu") if cost[kind])
        amount = sum(parts, Decimal(0))
        if 0 < amount < _LEAST_SHOWN:
            return f"< {_LEAST_SHOWN} {cost['currency']}"
        return words.money(str(amount), cost["currency"])
