"""Panels: the ensembles of a nemesis's load, and what comes of each line that asks one, counted again by hand.

What a member says follows from the line alone, whenever it is asked and however often: it repeats the line, says `no`,
or refuses a line that allows fewer tokens than it needs. So each line's verdict is known beforehand.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_WORD: Final = re.compile(r"(please|no|maybe)$")
_MOST_TOKENS: Final = {"please": 200, "no": 200, "mumble": 200, "maybe": 50, "hardly": 20}
"""What a line allows, by its last word."""


@dataclass(frozen=True)
class Seat:
    """One member."""

    model: str
    weight: int = 1
    needs: int = 0
    """It refuses a line that allows fewer tokens."""
    says_no: bool = False
    """It says that, else what it was asked."""

    def written(self, place: int, kind: str) -> dict[str, Any]:
        """As an operator writes it."""
        script = f"[[needs {self.needs}]]" * (self.needs > 0) + "[[says no]]" * self.says_no
        params = {"seed": place, **({"script": script} if script else {})}
        return {"model": self.model, "params": params} | ({"weight": self.weight} if kind == "vote" else {})


@dataclass(frozen=True)
class Decided:
    """A verdict: whose answer it is."""

    winner: int
    agreement: float | None = None
    degraded: bool = False


@dataclass(frozen=True)
class Panel:
    """One ensemble."""

    kind: str
    seats: tuple[Seat, ...]
    words: tuple[str, ...]
    """Its lines end with these, in turn."""

    @property
    def name(self) -> str:
        """As lines ask for it."""
        return f"nemesis-{self.kind}"

    @property
    def definition(self) -> dict[str, Any]:
        """As an operator writes it."""
        members = [seat.written(place, self.kind) for place, seat in enumerate(self.seats)]
        written = {"name": self.name, "kind": self.kind, "members": members}
        if self.kind == "vote":
            written |= {"extract": {"regex": _WORD.pattern}, "min_responses": 2}
        if self.kind == "cascade":
            written["accept"] = {"regex": "please$"}
        return written

    @property
    def labels(self) -> list[str]:
        """What an answer calls its members."""
        models, times = [seat.model for seat in self.seats], Counter[str]()
        labels = []
        for model in models:
            times[model] += 1
            labels.append(model if times[model] == 1 else f"{model}#{times[model]}")
        return labels

    def body(self, text: str) -> dict[str, Any]:
        """What a line's request has beside its text."""
        return {"max_tokens": _allowed(text)}

    def says(self, place: int, text: str) -> str | None:
        """What a member answers; None if it refuses, or dies of it."""
        seat = self.seats[place]
        if "[[" in text or _allowed(text) < seat.needs:
            return None
        return "no" if seat.says_no else text

    def judge(self, answers: Mapping[int, str]) -> Decided | None:
        """The verdict on these answers, the others having failed; None: too few."""
        return self._vote(answers) if self.kind == "vote" else self._first(answers)

    def verdict(self, text: str) -> Decided | None:
        """The verdict on a line, if nobody cuts it short."""
        said = {place: self.says(place, text) for place in range(len(self.seats))}
        return self.judge({place: answer for place, answer in said.items() if answer is not None})

    def asked(self, text: str) -> range:
        """The members that are asked a line, if nobody cuts it short."""
        found = self.verdict(text)
        if self.kind != "vote" and "[[die]]" in text:
            return range(1)  # a line that two engines died of is not tried on the next member's
        if self.kind == "vote" or found is None or found.degraded:
            return range(len(self.seats))
        return range(found.winner + 1)

    def _vote(self, answers: Mapping[int, str]) -> Decided | None:
        found = {place: _WORD.search(answer) for place, answer in sorted(answers.items())}
        votes = {place: match[1] for place, match in found.items() if match}
        if len(votes) < 2:
            return None
        weights = Counter[str]()
        for place, word in votes.items():
            weights[word] += self.seats[place].weight
        (word, most), *others = weights.most_common()
        assert all(weight < most for _, weight in others), "no line of ours is a tie"
        return Decided(next(place for place in votes if votes[place] == word), round(most / weights.total(), 4))

    def _first(self, answers: Mapping[int, str]) -> Decided | None:
        last = len(self.seats) - 1
        for place in sorted(answers):
            if self.kind == "fallback" or place == last or answers[place].endswith("please"):
                return Decided(place)
        return Decided(max(answers), degraded=True) if answers else None


def panels(models: Sequence[str]) -> tuple[Panel, ...]:
    """One of each kind, of these models in turn."""
    one, two, three = (models[place % len(models)] for place in range(3))
    return (
        Panel("vote", (Seat(one, 2), Seat(two, 2, needs=100), Seat(three, 3, says_no=True)),
              ("please", "no", "maybe", "mumble")),
        Panel("fallback", (Seat(one, needs=100), Seat(two, needs=50), Seat(three, says_no=True)),
              ("please", "please", "maybe", "hardly")),
        Panel("cascade", (Seat(one), Seat(two, needs=100), Seat(three, needs=30, says_no=True)),
              ("please", "please", "mumble", "maybe", "hardly")),
    )  # fmt: skip


def _allowed(text: str) -> int:
    return _MOST_TOKENS.get(text.rpartition(" ")[2], 200)
