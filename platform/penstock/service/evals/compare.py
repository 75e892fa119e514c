"""Compare: two runs' results side by side, like braiding, since both are in the order of their custom_ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from penstock.blobs.store import Blobs
from penstock.domain.api_errors import LeaseLost, Unreadable
from penstock.domain.evals.comparison import Comparison, ComparisonState
from penstock.domain.evals.run import RunFailed
from penstock.scoring.paired import METHOD, Pairs
from penstock.service.core.transaction import Database, Transaction
from penstock.service.evals import references
from penstock.service.evals.eval_work import Hold
from penstock.store.evals import comparisons, eval_runs


class _Score(msgspec.Struct):
    name: str
    score: float | None


class _Line(msgspec.Struct):
    custom_id: str
    scores: list[_Score]


_read = msgspec.json.Decoder(_Line).decode
Scores = dict[str, int | None]


def compare(db: Database, blobs: Blobs, one: Comparison, hold: Hold) -> str:
    """End a comparison; what happened, in words. Raises RunFailed and LeaseLost."""
    baseline, candidate = (results(db, blobs, one.tenant, id) for id in (one.baseline, one.candidate))
    try:
        found = paired(baseline, candidate, hold)
    except Unreadable as error:
        raise RunFailed("results_gone", f"The results can't be read: {error}") from error
    outcome = found.as_json()
    db.run(_commit, hold, outcome)
    return f"{outcome['lines']['paired']} lines paired"


def results(db: Database, blobs: Blobs, tenant: str, run: str) -> Iterator[tuple[bytes, Scores]]:
    """A run's scores by custom_id, in thousandths; raise RunFailed if they are gone."""
    found = db.run(lambda tx: eval_runs.get(tx.conn, tenant, run))
    if found is None or found.result_file is None:
        raise RunFailed("results_gone", f"The run {run} was deleted.")
    key = references.key_of(db, tenant, found.result_file)
    for raw in blobs.lines(key):
        line = _read(raw)
        scores = {one.name: None if one.score is None else round(one.score * 1_000) for one in line.scores}
        yield line.custom_id.encode(), scores


@dataclass
class Paired:
    """What both runs say, by scorer, and lines that only one of them has."""

    pairs: dict[str, Pairs] = field(default_factory=dict)
    both: int = 0
    only_baseline: int = 0
    only_candidate: int = 0

    def add(self, baseline: Scores, candidate: Scores) -> None:
        """One line that both have; a scorer counts it if it could score both answers."""
        self.both += 1
        for name, before in baseline.items():
            pairs = self.pairs.setdefault(name, Pairs())
            after = candidate.get(name)
            if before is not None and after is not None:
                pairs.add(before, after)

    def as_json(self) -> dict[str, Any]:
        """As a row keeps it."""
        lines = {"paired": self.both, "only_baseline": self.only_baseline, "only_candidate": self.only_candidate}
        return {"lines": lines, **METHOD, "scores": [pairs.as_json(name) for name, pairs in self.pairs.items()]}


def paired(baseline: Iterator[tuple[bytes, Scores]], candidate: Iterator[tuple[bytes, Scores]], hold: Hold) -> Paired:
    """Both runs' lines by custom_id; both are in its order."""
    found = Paired()
    left, right = next(baseline, None), next(candidate, None)
    while left is not None or right is not None:
        hold.tick()
        if right is None or (left is not None and left[0] < right[0]):
            found.only_baseline += 1
            left = next(baseline, None)
        elif left is None or right[0] < left[0]:
            found.only_candidate += 1
            right = next(candidate, None)
        else:
            found.add(left[1], right[1])
            left, right = next(baseline, None), next(candidate, None)
    return found


def _commit(tx: Transaction, hold: Hold, outcome: dict[str, Any]) -> None:
    work = hold.work
    if not comparisons.end(tx.conn, work.id, work.lease, ComparisonState.COMPLETED, outcome=outcome):
        raise LeaseLost
