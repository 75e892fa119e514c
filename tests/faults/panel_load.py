"""A load of panels and its account: lines that ask ensembles, and what must be true of them after any fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from e2e.live import chat
from faults import history, panel_history
from faults import journal as journals
from faults.accepted import Accepted, Line
from faults.history import Verdict
from faults.house import MODEL, House
from faults.panels import panels

from penstock.service.ensembles import ensembles


@dataclass(frozen=True)
class PanelLoad:
    """A batch whose lines ask an ensemble of each kind that gathers, in turn."""

    id: str
    lines: Sequence[Line]

    @classmethod
    def submit(cls, house: House, name: str, count: int) -> PanelLoad:
        """Upload and create it; the ensembles are added if they are not there."""
        kinds = panels((MODEL,))
        for panel in kinds:
            house.run(ensembles.add, panel.definition)
        lines = []
        for n in range(count):
            panel, words = kinds[n % len(kinds)], kinds[n % len(kinds)].words
            lines.append(Line(f"{name}-{n}", f"line {n} of {name} {words[n // len(kinds) % len(words)]}", panel))
        sent = [chat(line.custom_id, line.text, kinds[n % len(kinds)].name, **kinds[n % len(kinds)].body(line.text))
                for n, line in enumerate(lines)]  # fmt: skip
        return cls(house.client.submit(sent).id, lines)

    def is_as_its_rules_say(self, house: House, seconds: float = 60.0) -> None:
        """Wait for its end: each line once, with its verdict; usage is its members'; no wave was cut twice."""
        assert house.client.ended(self.id, seconds).status == "completed"
        wrong: list[str] = []
        with psycopg.connect(house.database_url, autocommit=True) as database:
            accepted = Accepted("default", "batch", self.id, self.lines)
            wrong += history.judge_one(accepted, house.client, database, house.blobs, Verdict())
            for promise, query in panel_history.MUST_NOT_BE.items():
                wrong += [f"{promise}: {row}" for row in database.execute(query.encode()).fetchall()]
        assert not wrong, "\n".join(wrong)

    def asked_once(self, journal: Path) -> None:
        """Each line came to an engine as often as it has members that it needs."""
        needs = journals.needed([Accepted("default", "batch", self.id, self.lines)])
        times = journals.asked(journal, needs)
        more = {text: times[text] for text, count in needs.items() if times[text] != count}
        assert not more, f"asked more or less often than needed: {more}"

    def folds(self, house: House) -> list[str]:
        """How the leases of its folds ended, in order."""
        return [how for (how,) in house.rows(_LEASES, self.id)]


_LEASES = """
    select l.closed_as from leases l join slices s on s.id = l.slice
    where s.batch = %s and s.ensemble is not null and s.member is null order by l.id"""
