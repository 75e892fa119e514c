"""Score: each line of a run by each scorer, in the order of custom_ids → the results file, counts and means → commit.

Doing it again from any point gives the same bytes. Memory does not grow with the lines: answers and references are
sorted on scratch, and scores are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from penstock.blobs.store import Blobs
from penstock.domain.evals.run import Eval, EvalRun, RunFailed, RunState
from penstock.domain.evals.scorer import Scorer, ScorerKind, embedder
from penstock.failpoint import failpoint
from penstock.scoring import scorers
from penstock.scoring.score import Score, left_out, missed
from penstock.scoring.tally import ScoreTally
from penstock.service.core import scratch
from penstock.service.core.transaction import Database, Transaction
from penstock.service.evals import answers, embeddings, eval_work, prepare, references
from penstock.service.evals.answers import RunAnswer
from penstock.service.evals.embeddings import Vectors
from penstock.service.evals.eval_work import Hold
from penstock.service.results.result_file import ResultFile, Written, publish
from penstock.settings import Settings


def score(db: Database, blobs: Blobs, one: Eval, run: EvalRun, hold: Hold, settings: Settings) -> str:
    """End a run whose batch has ended, or have its answers embedded first; what happened, in words.

    Raises RunFailed and LeaseLost.
    """
    batch = answers.batch_of(db, run)
    with scratch.folder(settings.scratch_dir, "eval-") as folder:
        expected = references.read(db, blobs, one, folder, hold, settings)
        found = answers.read(db, blobs, batch, folder, hold)

        def again() -> Iterator[RunAnswer]:
            return answers.joined(found, None if expected is None else references.unique(expected, hold))

        model = embedder(one.scorers)
        if model is not None and run.embeddings is None:
            with ResultFile(db, blobs, run.tenant, f"{run.id}_embeddings.jsonl") as sheet:
                for line in embeddings.asked(again(), model):
                    hold.tick()
                    sheet.line(line)
            if sheet.written is not None:
                terms = prepare.terms_of(embeddings.ENDPOINT, run)
                made = prepare.make_batch(db, hold, sheet.written, terms, RunState.EMBEDDING, settings)
                return f"{sheet.written.lines} lines are embedded by {made.id}"
        vectors = embeddings.read(db, blobs, run) if run.embeddings is not None else iter(())
        lines = Lines(one.scorers, vectors)
        with ResultFile(db, blobs, run.tenant, f"{run.id}_results.jsonl") as sheet:
            for answer in again():
                sheet.line(lines.scored(answer))
                hold.scored += 1
                hold.tick()
    if sheet.written is None or not any(tally.scores for tally in lines.tallies):
        raise RunFailed("nothing_to_score", lines.why_nothing())
    failpoint("eval.scored")
    db.run(commit, hold, sheet.written, lines.outcome(), hold.scored)
    return f"{hold.scored} lines scored"


class Lines:
    """The scorers over all lines: a result line of each, and what is counted meanwhile."""

    def __init__(self, of: tuple[Scorer, ...], vectors: Iterator[tuple[bytes, Vectors | str]]) -> None:
        self.tallies = [ScoreTally(one) for one in of]
        self._measures = [scorers.measure(one) for one in of]
        self._vectors = vectors
        self._head = next(vectors, None)
        self._passed = self._failed = self._errored = 0
        self._why: str | None = None

    def scored(self, answer: RunAnswer) -> bytes:
        """Score one line, and give what the results file says of it."""
        expected: Any = msgspec.json.decode(answer.expected) if answer.expected else scorers.NOTHING
        found = []
        for tally, measure in zip(self.tallies, self._measures, strict=True):
            scorer = tally.scorer
            if answer.text is None:
                one = missed(answer.reason or "") if answer.asked else left_out(answer.reason or "")
            elif scorer.kind is ScorerKind.SIMILARITY:
                one = self._near(scorer, answer)
            else:
                one = measure(answer.text, expected)
            tally.add(one)
            found.append((scorer.name, one))
        self._count([one for _, one in found])
        return msgspec.json.encode(
            {
                "custom_id": answer.custom_id,
                "passed": all(one.passed for _, one in found),
                "scores": [
                    {
                        "name": name,
                        "score": None if one.milli is None else one.milli / 1_000,
                        "passed": one.passed,
                        "reason": one.reason,
                    }
                    for name, one in found
                ],
            }
        )

    def _near(self, scorer: Scorer, answer: RunAnswer) -> Score:
        key = answer.custom_id.encode()
        while self._head is not None and self._head[0] < key:
            self._head = next(self._vectors, None)
        if self._head is None or self._head[0] != key:
            if not answer.expected:
                return left_out("nothing is expected of it")
            return missed("the answer is empty") if not answer.text else left_out("what is expected is no text")
        vectors = self._head[1]
        return left_out(vectors) if isinstance(vectors, str) else scorers.near(scorer, *vectors)

    def _count(self, found: list[Score]) -> None:
        without = next((one for one in found if one.milli is None), None)
        if without is not None:
            self._errored += 1
            self._why = self._why or without.reason
        elif all(one.passed for one in found):
            self._passed += 1
        else:
            self._failed += 1

    def outcome(self) -> dict[str, Any]:
        """What is said of the run: lines by how they ended, and each scorer's mean."""
        counts = {"passed": self._passed, "failed": self._failed, "errored": self._errored}
        return {"total": sum(counts.values()), **counts, "scores": [tally.as_json() for tally in self.tallies]}

    def why_nothing(self) -> str:
        """Why no line could be scored, as far as the first of them knows."""
        return f"No line could be scored: {self._why or 'there is none'}."


def commit(tx: Transaction, hold: Hold, written: Written, outcome: dict[str, Any], scored: int) -> None:
    """Make the results visible and end the run in one step; raise LeaseLost."""
    run = eval_work.completed(tx, hold.work, outcome=outcome, result_file=written.id, scored=scored)
    publish(tx, run.tenant, written, purpose="batch_output", ttl=None)
