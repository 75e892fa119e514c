"""A past: everything that happened in a house, which tests of the history checker falsify."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from faults import history
from faults.accepted import Accepted
from faults.history import Verdict
from faults.house import House


@dataclass
class Past:
    """Everything that happened in a house, which can be falsified and is put right again after each test."""

    house: House
    accepted: list[Accepted]
    journal: Path

    def judge(self) -> Verdict:
        clients = {tenant: self.house.client_of(tenant) for tenant in ("default", "other")}
        return history.judge(self.house.database_url, self.accepted, clients, self.house.blobs, self.journal)

    def sql(self, statement: str, *values: Any) -> None:
        """Change something that the triggers forbid to change."""
        with psycopg.connect(self.house.database_url, options="-c session_replication_role=replica") as connection:
            done = connection.execute(statement, values or self.names)  # type: ignore[arg-type]
            assert done.rowcount > 0, "nothing was planted"

    @property
    def batch(self) -> str:
        """A batch with an output and an error file."""
        return self.accepted[0].id

    @property
    def names(self) -> dict[str, str]:
        """For statements: a batch, a job of another tenant, a batch of ensembles."""
        return {"batch": self.batch, "job": self.accepted[2].id, "panels": self.accepted[3].id}

    def file(self, which: str, batch: str) -> tuple[str, Path]:
        """The id and the bytes of its output or error file."""
        ((id, key),) = self.house.rows(
            f"select f.id, f.blob_key from batches b join files f on f.id = b.{which}_file where b.id = %s", batch
        )
        return id, self.house.blobs / key

    def rewrite(self, which: str, change: Callable[[list[Any]], list[Any]], batch: str = "") -> None:
        """Change the lines of its output or error file."""
        id, path = self.file(which, batch or self.batch)
        lines = change([json.loads(line) for line in path.read_text().splitlines()])
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.sql("update files set bytes = %s where id = %s", path.stat().st_size, id)
