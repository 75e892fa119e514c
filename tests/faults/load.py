"""A load and its account: a batch of lines that all differ, and what must be true of it after any fault.

The engines' journal says which engine was asked which line when; so what was asked again is known line by line.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from e2e.live import chat, said
from faults.house import MODEL, House
from openai.types import Batch
from store import invariants

from penstock.store.engine import sync_engine

_ASKED = re.compile(r"([\d.]+)\t(\d+)\tline (\d+) of ([\w-]+)\.")
_LATE = "select g.id from segments g join leases l on l.id = g.lease where g.created_at > l.closed_at"


@dataclass(frozen=True)
class Asked:
    """One line that came to one engine at one time."""

    at: float
    engine: int
    line: int


@dataclass(frozen=True)
class Load:
    """A batch of `lines` lines, each with a text of its own that has the load's name in it."""

    name: str
    lines: int
    id: str
    copies: int = 1
    """How many lines in a row ask the same, at temperature 0."""

    @classmethod
    def submit(cls, house: House, name: str, lines: int, copies: int = 1, model: str = MODEL, **extra: Any) -> Load:
        """Upload and create it."""
        return cls(name, lines, house.client.submit(requests(name, lines, copies, model), **extra).id, copies)

    def asked(self, journal: Path) -> list[Asked]:
        """Every time that a line of it came to an engine, in order."""
        found = (_ASKED.match(entry) for entry in journal.read_text().splitlines())
        return [Asked(float(m[1]), int(m[2]), int(m[3])) for m in found if m and m[4] == self.name]

    def asked_again(self, journal: Path) -> Counter[int]:
        """Lines that came to an engine more than once, and how often they came."""
        times = Counter(one.line for one in self.asked(journal))
        return Counter({line: count for line, count in times.items() if count > 1})

    def recorded_by(self, house: House, holder: UUID) -> set[int]:
        """The lines that one process recorded."""
        rows = house.rows(
            "select line from segments g join leases l on l.id = g.lease, unnest(g.lines) as line"
            " where l.holder = %s and l.batch = %s",
            holder,
            self.id,
        )
        return {line for (line,) in rows}

    def has_each_answer_once(self, house: House, seconds: float = 60.0) -> Batch:
        """Wait for its end: every line once, in order, with its own answer; counts and usage add up (I1, I2)."""
        batch = house.client.ended(self.id, seconds)
        assert batch.status == "completed"
        assert batch.request_counts
        assert batch.error_file_id is None
        counts = batch.request_counts
        assert (counts.total, counts.completed, counts.failed) == (self.lines, self.lines, 0)
        output = house.client.file(batch.output_file_id)
        assert [line["custom_id"] for line in output] == [f"{self.name}-{n}" for n in range(1, self.lines + 1)]
        assert [said(line) for line in output] == [
            text(self.name, asked(n, self.copies)) for n in range(1, self.lines + 1)
        ]
        usages = [line["response"]["body"]["usage"] for line in output]
        assert batch.usage
        assert batch.usage.input_tokens == sum(usage["prompt_tokens"] for usage in usages)
        assert batch.usage.output_tokens == sum(usage["completion_tokens"] for usage in usages)
        return batch


def requests(name: str, lines: int, copies: int = 1, model: str = MODEL) -> list[dict[str, Any]]:
    """The lines of a load."""
    more = {"temperature": 0} if copies > 1 else {}
    return [chat(f"{name}-{n}", text(name, asked(n, copies)), model, **more) for n in range(1, lines + 1)]


def asked(line: int, copies: int) -> int:
    """The first of the lines that ask what this one asks."""
    return line - (line - 1) % copies


def text(name: str, line: int) -> str:
    """What a line asks, and so what its answer says."""
    return f"line {line} of {name}."


def check(house: House) -> None:
    """Raise if anything in the database is as it must never be, or a blob is there that no row knows."""
    engine = sync_engine(house.database_url, connections=1)
    with engine.connect() as connection:
        invariants.check(connection)
    engine.dispose()
    assert not (late := house.rows(_LATE)), f"segments were accepted after their lease was closed: {late}"
    assert not (unknown := unknown_blobs(house)), f"nobody will ever sweep {unknown}"


def unknown_blobs(house: House) -> list[str]:
    """Blobs, and what is left of cut writes, that neither a row names nor an intent remembers."""
    rows = house.rows("""
        select blob_key from files union select blob_key from upload_parts
        union select index_key from files where index_key is not null
        union select blob_key from segments where blob_key is not null
        union select blob_key from intents union select input_key from batches where input_key is not null
        union select plan_key from batches where plan_key is not null
        union select plan_key from slices where plan_key is not null""")
    known = {key for (key,) in rows}
    found = [str(path.relative_to(house.blobs)) for path in house.blobs.rglob("*") if path.is_file()]
    return [key for key in found if key.partition("#")[0] not in known]
