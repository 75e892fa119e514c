"""An eval desk: evals over real files, and runs that are prepared, scored and compared as an io worker does it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from service.desk import Desk, request
from store.world import CHAT
from store.world import MODEL as MODEL

from penstock.domain.evals.comparison import COMPARISON_PREFIX, Comparison
from penstock.domain.evals.run import RUN_PREFIX, Eval, EvalRun, EvalWork, RunState, RunTerms
from penstock.domain.evals.scorer import Normalisation, Scorer, ScorerKind
from penstock.domain.work.terms import Terms
from penstock.service.core.ids import blob_key, fresh
from penstock.service.evals import comparisons, eval_work, evals, runs, task
from penstock.service.evals.eval_work import Hold
from penstock.service.intake import submit
from penstock.store.batches import files

LONG = Scorer("long", ScorerKind.REGEX, pattern=".{4}")
EXACT = Scorer("exact", ScorerKind.EXACT, normalise=(Normalisation.TRIM,))


def completion(text: str) -> bytes:
    """What an engine answers."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return json.dumps({"choices": [{"index": 0, "message": message}], "usage": usage}).encode()


def asked(count: int, **changes: Any) -> bytes:
    """So many requests, `q1` and so on."""
    return b"\n".join(request(f"q{n}", **changes) for n in range(1, count + 1))


def expecting(expected: Mapping[str, Any]) -> bytes:
    """A reference file."""
    return b"".join(json.dumps({"custom_id": id, "expected": one}).encode() + b"\n" for id, one in expected.items())


class EvalDesk:
    """What an io worker does to one run after the other; `desk` does it to batches."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.world = desk.world
        self.db = desk.world.db

    def file(self, content: bytes, purpose: str = "evals", tenant: str = "acme") -> str:
        """A file with this content."""
        id, key = fresh("file-"), blob_key(tenant, "files")
        self.db.run(lambda tx: files.intend(tx.conn, key))
        self.desk.blobs.put(key, content)
        self.db.run(
            lambda tx: files.insert(
                tx.conn, tenant, id=id, purpose=purpose, filename="f", bytes=len(content), sha256=bytes(32),
                blob_key=key, ttl=None,
            )
        )  # fmt: skip
        return id

    def eval(
        self, *scorers: Scorer, lines: bytes | None = None, references: bytes | None = None, tenant: str = "acme"
    ) -> str:
        """An eval over these lines and references."""
        new = Eval(
            id=fresh("eval_"),
            tenant=tenant,
            name="e",
            scorers=scorers or (EXACT,),
            created_at=datetime.now(UTC),
            input_file=None if lines is None else self.file(lines, tenant=tenant),
            endpoint=None if lines is None else CHAT,
            reference_file=None if references is None else self.file(references, tenant=tenant),
        )
        return self.db.run(evals.create, tenant, new, None, self.world.settings).id

    def run(self, eval: str, tenant: str = "acme", **terms: Any) -> str:
        """A run that waits to be prepared."""
        found = RunTerms(**terms)
        state, at = RunState.PREPARING, datetime.now(UTC)
        new = EvalRun(id=fresh(RUN_PREFIX), tenant=tenant, eval=eval, name="", state=state, terms=found, created_at=at)
        return self.db.run(runs.create, tenant, new, None, self.world.settings).id

    def find(self, eval: str, id: str, tenant: str = "acme") -> EvalRun:
        """A run as it is now."""
        return self.db.run(runs.get, tenant, eval, id)

    def claim(self, id: str) -> EvalWork:
        """Take a run or comparison."""
        work = self.db.run(eval_work.claim, id, self.world.settings)
        assert work is not None, "it is held, or not due"
        return work

    def hold(self, id: str, **more: Any) -> Hold:
        """The same in an io worker's hands."""
        return Hold(self.db, self.claim(id), self.world.settings, **more)

    def do(self, id: str) -> str:
        """One turn of an io worker."""
        return task.do(self.db, self.desk.blobs, self.hold(id), self.world.settings)

    def answer(self, batch: str, say: Callable[[int], str], count: int, **more: Any) -> None:
        """Validate a batch if it waits for that, answer it, and put it together."""
        if self.world.find(batch).state == "validating":
            self.desk.validate_it(batch)
        bodies = {n: completion(say(n)) for n in range(1, count + 1)}
        queues = self.world.rows("select distinct model from slices where batch = :batch", batch=batch)
        for queue in sorted(row.model for row in queues):
            self.desk.answer(batch, queue, bodies=bodies, **more)
        self.desk.assemble(batch)

    def ended(self, count: int, say: Callable[[int], str], content: bytes | None = None, **more: Any) -> str:
        """A batch that has answers."""
        batch = self.desk.validate(content or asked(count))
        self.answer(batch, say, count, **more)
        return batch

    def again(self, eval: str, count: int, say: Callable[[int], str]) -> str:
        """A batch of the eval's own lines, which has answers."""
        file = self.db.run(evals.get, "acme", eval).input_file or ""
        self.world.sql("update files set purpose = 'batch' where id = :file", file=file)
        made = self.db.run(submit.create_batch, "acme", file, Terms(CHAT), None, self.world.settings)
        self.answer(made.id, say, count)
        return made.id

    def scored(self, eval: str, batch: str) -> EvalRun:
        """A run over a batch that has ended, completed."""
        id = self.run(eval, batch=batch)
        self.do(id)
        self.do(id)
        return self.find(eval, id)

    def compared(self, eval: str, baseline: str, candidate: str) -> Comparison:
        """A comparison, completed."""
        one = self.db.run(
            comparisons.create, "acme", eval, baseline=baseline, candidate=candidate, settings=self.world.settings
        )
        assert one.id.startswith(COMPARISON_PREFIX)
        self.do(one.id)
        return self.db.run(comparisons.get, "acme", eval, one.id)

    def content(self, file: str | None, tenant: str = "acme") -> bytes:
        """The bytes of a file."""
        found = self.db.run(lambda tx: files.get(tx.conn, tenant, file or ""))
        assert found is not None
        return self.desk.blobs.read(found.blob_key)

    def lines(self, run: EvalRun) -> list[dict[str, Any]]:
        """What the results file says, line by line."""
        return [json.loads(line) for line in self.content(run.result_file).splitlines()]
