"""Panels: the ensembles of a nemesis's load, and what comes of each line that asks one, counted again by hand.

What a member says follows from the line alone, whenever it is asked and however often: it repeats the line, says what
it always says, or refuses a line that allows fewer tokens than it needs; and so does a judge with what it reads. So
each line's verdict is known beforehand.
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
_PROMPT: Final = "{request} | {count} | {answers}"
"""Of the judges: it begins with what no other line has."""


@dataclass(frozen=True)
class Seat:
    """One member."""

    model: str
    weight: int = 1
    needs: int = 0
    """It refuses a line that allows fewer tokens."""
    says: str = ""
    """It says that, else what it was asked."""

    def written(self, place: int) -> dict[str, Any]:
        """As an operator writes it."""
        script = f"[[needs {self.needs}]]" * (self.needs > 0) + f"[[says {self.says}]]" * bool(self.says)
        params = {"seed": place, **({"script": script} if script else {})}
        return {"model": self.model, "params": params} | ({"weight": self.weight} if self.weight != 1 else {})

    def said(self, asked: str, allowed: int) -> str | None:
        """What it answers; None if it refuses."""
        return None if allowed < self.needs else self.says or asked


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
    judge: Seat | None = None
    """Who reads what the members say; its place is behind theirs."""

    @property
    def name(self) -> str:
        """As lines ask for it."""
        return f"nemesis-{self.kind}"

    @property
    def definition(self) -> dict[str, Any]:
        """As an operator writes it."""
        members = [seat.written(place) for place, seat in enumerate(self.seats)]
        written: dict[str, Any] = {"name": self.name, "kind": self.kind, "members": members}
        if self.kind == "vote":
            written |= {"extract": {"regex": _WORD.pattern}, "min_responses": 2}
        if self.kind == "cascade":
            written["accept"] = {"regex": "please$"}
        if self.judge:
            written["judge"] = self.judge.written(len(self.seats)) | {"prompt": _PROMPT}
        return written

    @property
    def labels(self) -> list[str]:
        """What an answer calls its members."""
        models, times = [seat.model for seat in self.seats], Counter[str]()
        labels = []
        for model in models:
            times[model] += 1
            labels.append(model if times[model] == 1 else f"{model}#{times[model]}")
        return [*labels, "judge"]

    def body(self, text: str) -> dict[str, Any]:
        """What a line's request has beside its text."""
        return {"max_tokens": _allowed(text)}

    def says(self, place: int, text: str) -> str | None:
        """What a member answers, or the judge; None if it refuses, or dies of it."""
        if "[[" in text:
            return None
        if place < len(self.seats):
            return self.seats[place].said(text, _allowed(text))
        assert self.judge is not None, "nobody else is there"
        return self.judge.said(self._question(text), 1_024 if self.kind == "best_of" else _allowed(text))

    def verdict(self, answers: Mapping[int, str]) -> Decided | None:
        """The verdict on these answers, the others having failed; None: too few."""
        if self.judge:
            return self._judged(answers)
        return self._vote(answers) if self.kind == "vote" else self._first(answers)

    def choice(self, answers: Mapping[int, str]) -> int | None:
        """Whom the judge of a best_of names in these answers, by its number."""
        said = answers.get(len(self.seats)) if self.kind == "best_of" else None
        return None if said is None else int(said)

    def asked(self, text: str) -> range:
        """The members that are asked a line, and the judge, if nobody cuts it short."""
        answers = self._answers(text)
        if self.judge and len(answers) > 1:
            return range(len(self.seats) + 1)
        found = None if self.judge else self.verdict(answers)
        if not self._at_once and "[[die]]" in text:
            return range(1)  # a line that two engines died of is not tried on the next member's
        if self._at_once or found is None or found.degraded:
            return range(len(self.seats))
        return range(found.winner + 1)

    def questions(self, text: str) -> dict[str, int]:
        """What engines are asked for a line and how often, if nobody cuts it short."""
        asked = self.asked(text)
        judged = len(self.seats) in asked
        return {text: len(asked) - judged} | ({self._question(text): 1} if judged else {})

    @property
    def _at_once(self) -> bool:
        return self.kind == "vote" or self.judge is not None

    def _answers(self, text: str) -> dict[int, str]:
        """Of the members alone, if nobody cuts them short."""
        said = {place: self.says(place, text) for place in range(len(self.seats))}
        return {place: answer for place, answer in said.items() if answer is not None}

    def _question(self, text: str) -> str:
        """What the judge reads."""
        answers = self._answers(text)
        numbered = "\n\n".join(f"Answer {n}:\n{answer}" for n, answer in enumerate(answers.values(), 1))
        return _PROMPT.format(request=f"user: {text}", count=len(answers), answers=numbered)

    def _judged(self, answers: Mapping[int, str]) -> Decided | None:
        judge = len(self.seats)
        good = sorted(answers.keys() - {judge})
        if len(good) < 2:
            return Decided(good[0]) if good else None
        if self.kind == "combine" and judge in answers:
            return Decided(judge)
        choice = self.choice(answers)
        if choice is not None and choice <= len(good):
            return Decided(good[choice - 1])
        return Decided(max(good, key=lambda place: (self.seats[place].weight, -place)), degraded=True)

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
    """One of each kind that gathers, of these models in turn."""
    one, two, three = (models[place % len(models)] for place in range(3))
    return (
        Panel("vote", (Seat(one, 2), Seat(two, 2, needs=100), Seat(three, 3, says="no")),
              ("please", "no", "maybe", "mumble")),
        Panel("fallback", (Seat(one, needs=100), Seat(two, needs=50), Seat(three, says="no")),
              ("please", "please", "maybe", "hardly")),
        Panel("cascade", (Seat(one), Seat(two, needs=100), Seat(three, needs=30, says="no")),
              ("please", "please", "mumble", "maybe", "hardly")),
        Panel("best_of", (Seat(one, 2), Seat(two, needs=100), Seat(three, needs=30, says="no")),
              ("please", "maybe", "hardly"), judge=Seat(two, says="3")),
        Panel("combine", (Seat(one), Seat(two, 2, needs=30), Seat(three, needs=100, says="no")),
              ("please", "maybe", "mumble", "hardly"), judge=Seat(three, needs=60)),
    )  # fmt: skip


def _allowed(text: str) -> int:
    return _MOST_TOKENS.get(text.rpartition(" ")[2], 200)
